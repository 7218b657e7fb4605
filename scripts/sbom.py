#!/usr/bin/env python3
"""Says what our programs are made of: a CycloneDX 1.6 SBOM, and the texts of the licences of all crates in them.

Both come from Cargo.lock by `cargo metadata`, and from the crates' own files. The same sources give the same bytes: no serial number,
and no time but SOURCE_DATE_EPOCH.

Usage: scripts/sbom.py VERSION SBOM LICENCES PACKAGE...
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"]
# Files of a crate that hold the terms of its licence, or who has the rights.
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version=1"]
    command += [f"--filter-platform={target}" for target in TARGETS]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def linked(graph, names, packages):
    """What is linked into these packages: id -> ids of what it uses. Neither tests nor what runs at build time."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    pending = [package["id"] for package in packages.values() if package["name"] in names and package["source"] is None]
    assert len(pending) == len(names), f"not all of {names} are packages of this workspace"
    found = {}
    while pending:
        package = pending.pop()
        if package in found:
            continue
        uses = {
            dependency["pkg"]
            for dependency in nodes[package]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
            and not is_macro(packages[dependency["pkg"]])
        }
        found[package] = uses
        pending.extend(uses)
    return found


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def checksums():
    with open(ROOT / "Cargo.lock", "rb") as file:
        locked = tomllib.load(file)["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in locked}


def component(package, digests):
    result = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "scope": "required",
        "purl": purl(package),
    }
    if package["description"]:
        result["description"] = " ".join(package["description"].split())
    digest = digests.get((package["name"], package["version"]))
    if digest:
        result["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if package["license"]:
        # "MIT/Apache-2.0" is how SPDX expressions were written before 2018.
        result["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if package["repository"]:
        result["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return result


def rust():
    with open(ROOT / "rust-toolchain.toml", "rb") as file:
        version = tomllib.load(file)["toolchain"]["channel"]
    return {
        "type": "framework",
        "bom-ref": f"rust-std@{version}",
        "name": "rust-std",
        "version": version,
        "description": "Rust's standard library with musl, the C library of its musl targets",
        "licenses": [{"expression": "(MIT OR Apache-2.0) AND MIT"}],
    }


def bom(version, found, packages):
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    digests = checksums()
    ours = {"type": "application", "bom-ref": "uimgacc", "name": "uimgacc", "version": version}
    ours["licenses"] = [{"expression": "Apache-2.0"}]
    std = rust()
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": ours}}
    if epoch:
        time = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
        document["metadata"] = {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": ours}
    refs = {package: purl(packages[package]) for package in found}
    used = {use for uses in found.values() for use in uses}
    tops = sorted(refs[package] for package in found if package not in used)
    components = [component(packages[package], digests) for package in found]
    document["components"] = sorted([*components, std], key=lambda item: item["bom-ref"])
    dependencies = [{"ref": "uimgacc", "dependsOn": [*tops, std["bom-ref"]]}]
    for package in sorted(found, key=refs.get):
        dependencies.append({"ref": refs[package], "dependsOn": sorted(refs[use] for use in found[package])})
    document["dependencies"] = dependencies
    return document


def licences(found, packages):
    """The texts, each once, with the crates that it is of."""
    texts = {}
    for package in sorted((packages[package] for package in found), key=purl):
        if package["source"] is None:
            continue
        folder = Path(package["manifest_path"]).parent
        files = sorted(path for path in folder.rglob("*") if path.is_file() and LICENCE_FILE.match(path.name))
        files = [path for path in files if path.suffix not in {".rs", ".go", ".py", ".html", ".toml"}]
        name = f"{package['name']} {package['version']} ({package['license']})"
        for path in files:
            text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip()
            _, crates = texts.setdefault(hashlib.sha256(text.encode()).digest(), (text, []))
            if name not in crates:
                crates.append(name)
        if not files:
            texts.setdefault(name.encode(), ("(The crate has no file with its licence.)", [name]))
    line = "=" * 100
    for text, crates in sorted(texts.values(), key=lambda item: (item[1], item[0])):
        yield f"{line}\n" + "\n".join(crates) + f"\n{line}\n\n{text}\n\n"


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    version, sbom, texts, *names = sys.argv[1:]
    read = metadata()
    packages = {package["id"]: package for package in read["packages"]}
    found = linked(read["resolve"], set(names), packages)
    Path(sbom).write_text(json.dumps(bom(version, found, packages), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    Path(texts).write_text("".join(licences(found, packages)), encoding="utf-8")


main()
