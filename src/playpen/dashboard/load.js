// Data files: scripts that hand one value to the page each, added when something of theirs is shown.

const KEPT_SHARDS = 24;
const arrivals = new Map(); // file -> what to do with its content
const shards = new Map(); // number -> promise of its content, the one used last at the end

window.playpen = {};

/** Let data files call `playpen.NAME`; `fileOf` tells from the numbers before the value which file it was. */
function receive(name, fileOf) {
  window.playpen[name] = (...content) => arrivals.get(fileOf(...content))?.(content.at(-1));
}

const shardFile = (number) => `shard-${String(number).padStart(5, "0")}.js`;

/** Promise what a data file holds, packed as it is. */
function load(file) {
  return new Promise((resolve, reject) => {
    const script = el("script", { src: `data/${file}` });
    const failed = () => reject(new Error(`data/${file} could not be read: keep the data folder beside this page, and unbroken`));
    arrivals.set(file, resolve);
    script.onerror = failed;
    script.onload = () => {
      script.remove();
      failed(); // does nothing when the content has come, which is before
    };
    document.head.append(script);
  });
}

/** Promise what a packed data file holds: base64 of gzip of JSON. */
async function loadPacked(file) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot unpack gzip; use Chrome 123, Firefox 120, Safari 17.5 or a newer one");
  }
  const payload = await load(file);
  try {
    return await unpack(payload);
  } catch {
    throw new Error(`data/${file} is damaged: copy the data folder again, or make the dashboard again`);
  }
}

function unpack(payload) {
  const text = atob(payload);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** Promise the content of a shard; those used last are kept. */
function loadShard(wanted) {
  const there = shards.get(wanted) ?? loadPacked(shardFile(wanted));
  shards.delete(wanted);
  shards.set(wanted, there);
  there.catch(() => shards.delete(wanted)); // so that another try reads it again
  if (shards.size > KEPT_SHARDS) shards.delete(shards.keys().next().value);
  return there;
}
