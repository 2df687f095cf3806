// A worker that leaves a snapshot for the next visit, and ends.
import { storeSnapshot, storedSnapshot } from "./python.js";

self.onmessage = async ({ data: version }) => {
  try {
    if (!(await storedSnapshot(version))) await storeSnapshot(version);
    self.postMessage("stored");
  } catch (error) {
    self.postMessage(`not stored: ${error.message}`); // without one the next visit starts as this one did
  }
};
