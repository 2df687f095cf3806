// Keep the files of this version of the site, so that it works offline after the first visit.
const CACHE = `vggscope ${new URL("./", self.location).href} {{VERSION}}`;
const FILES = {{FILES}};

self.addEventListener("install", (event) => {
  const files = ["./", ...FILES].map((name) => new Request(name, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(files)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const prefix = CACHE.slice(0, CACHE.lastIndexOf(" ") + 1);
  const old = (names) => names.filter((name) => name.startsWith(prefix) && name !== CACHE);
  event.waitUntil(
    caches.keys().then((names) => Promise.all(old(names).map((name) => caches.delete(name)))).then(() => self.clients.claim()),
  );
});

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== self.location.origin) return;
  event.respondWith(
    caches.match(event.request, { cacheName: CACHE, ignoreSearch: true }).then((kept) => kept ?? fetch(event.request)),
  );
});
