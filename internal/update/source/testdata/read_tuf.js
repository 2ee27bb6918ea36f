// Reads a repository with tuf-js and prints the digests of targets.
// usage: node read_tuf.js URL ROOT-FILE STATE-FOLDER TARGET...
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const { Updater } = require(path.join(process.env.NODE_CLIENTS, 'node_modules', 'tuf-js'));

async function main() {
  const [url, root, state, ...targets] = process.argv.slice(2);
  fs.mkdirSync(state, { recursive: true });
  fs.copyFileSync(root, path.join(state, 'root.json'));
  const updater = new Updater({
    metadataDir: state,
    metadataBaseUrl: url + '/metadata',
    targetDir: state,
    targetBaseUrl: url + '/targets',
  });
  await updater.refresh();
  for (const name of targets) {
    const info = await updater.getTargetInfo(name);
    if (!info) throw new Error(`${name} is no target`);
    const file = await updater.downloadTarget(info);
    console.log(crypto.createHash('sha256').update(fs.readFileSync(file)).digest('hex'), name);
  }
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
