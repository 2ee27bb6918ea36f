"""Reads a repository with python-tuf's client and prints the digests of targets.

usage: read_tuf.py URL ROOT-FILE STATE-FOLDER TARGET...
"""

import hashlib
import pathlib
import sys

from tuf.ngclient import Updater

url, root, state, *targets = sys.argv[1:]
pathlib.Path(state).mkdir(parents=True, exist_ok=True)
updater = Updater(
    metadata_dir=state,
    metadata_base_url=url + "/metadata/",
    target_dir=state,
    target_base_url=url + "/targets/",
    bootstrap=pathlib.Path(root).read_bytes(),
)
updater.refresh()
for name in targets:
    info = updater.get_targetinfo(name)
    if info is None:
        sys.exit(f"{name} is no target")
    file = updater.download_target(info)
    print(hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest(), name)
