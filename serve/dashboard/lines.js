// Counts long-lived connections. A browser opens at most six to one HTTP/1.1 server, over all its
// tabs: if live pictures took them all, every other request would wait.

const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol ?? "";
const LIMIT = /^h[23]/.test(protocol) ? 16 : 4;

let used = 0;

/** Takes a line: a function that gives it back, or null when all are in use. */
export async function takeLine() {
  if (navigator.locks === undefined) return takeOwn(); // plain http beyond this machine
  for (let number = 0; number < LIMIT; number += 1) {
    const release = await tryLock(`storeguard-line-${number}`);
    if (release !== null) return release;
  }
  return null;
}

function tryLock(name) {
  return new Promise((resolve) => {
    navigator.locks
      .request(name, { ifAvailable: true }, (lock) => {
        if (lock === null) {
          resolve(null);
          return undefined;
        }
        return new Promise((release) => resolve(release));
      })
      .catch(() => resolve(null));
  });
}

function takeOwn() {
  if (used >= LIMIT) return null;
  used += 1;
  let mine = true;
  return () => {
    if (mine) used -= 1;
    mine = false;
  };
}
