"""Pulls against a real server that stalls, truncates, corrupts, and takes or refuses ranges."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml

pytest.importorskip("pooch")

from mlip.cli import main
from mlip.data import archive
from mlip.data.download import DownloadError, download
from mlip.data.pull import frames_of, pull
from mlip.data.readers import read
from mlip.data.remote import RemoteFile
from mlip.data.store.reader import Store
from mlip.data.write_extxyz import to_extxyz
from tests.data.readers import real

BODY = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    """Serves ``body`` with the faults in ``faults``, one for each request, then none."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.faults, self.ranges, self.tag = BODY, [], True, '"one"'
        self.asked, self.pause = [], 0.0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        fault = server.faults.pop(0) if server.faults else ""
        body, start = server.body, 0
        if fault == "error":
            self.send_error(503)
            return
        if fault == "gone":
            self.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range") in (None, server.tag)
        if asked and server.ranges and fresh:
            start = int(asked[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        self.send(rest, fault)

    def send(self, rest, fault):
        if fault == "corrupt":
            rest = rest[:1000] + bytes(1000) + rest[2000:]
        if fault in ("truncate", "stall"):
            rest = rest[: len(rest) // 2]
        for at in range(0, len(rest), 65536):
            self.wfile.write(rest[at : at + 65536])
            self.wfile.flush()
            time.sleep(self.server.pause)
        if fault == "stall":
            time.sleep(3)
        if fault in ("truncate", "stall"):
            self.close_connection = True


@pytest.fixture
def server():
    found = Server()
    yield found
    found.shutdown()
    found.server_close()


def entry(server, body=BODY, **more):
    digest = hashlib.sha256(body).hexdigest()
    content = {"url": server.url("a.bin"), "sha256": digest, "size": len(body), **more}
    return RemoteFile(subset="all", **content)


def test_a_plain_download(server, tmp_path):
    seen = []
    path = download(
        entry(server), tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert [p.name for p in tmp_path.iterdir()] == ["all"]
    download(entry(server), tmp_path)
    assert len(server.asked) == 1  # what is there is checked, not fetched


@pytest.mark.parametrize("fault", ["truncate", "stall"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_gone_on_from(fault, ranges, server, tmp_path):
    server.faults, server.ranges = [fault, "error"], ranges
    path = download(entry(server), tmp_path, timeout_s=0.5)
    assert path.read_bytes() == BODY
    assert server.asked == [None, f"bytes={len(BODY) // 2}-", f"bytes={len(BODY) // 2}-"]


def test_a_file_that_changed_meanwhile_is_started_over(server, tmp_path):
    server.faults = ["truncate", *["error"] * 2]
    with pytest.raises(DownloadError, match="bytes are kept in"):
        download(entry(server), tmp_path, attempts=1)
    server.faults, server.tag, server.body = [], '"two"', BODY[::-1]
    assert download(entry(server, server.body), tmp_path).read_bytes() == BODY[::-1]


def test_corruption_is_found_and_nothing_kept(server, tmp_path):
    server.faults = ["corrupt"]
    with pytest.raises(DownloadError, match="not the file that the card describes"):
        download(entry(server), tmp_path)
    assert not list((tmp_path / "all").iterdir())
    assert download(entry(server), tmp_path).read_bytes() == BODY


def test_another_size_than_the_card_says(server, tmp_path):
    with pytest.raises(DownloadError, match="but the card says about 5"):
        download(entry(server, size=5), tmp_path)


@pytest.mark.parametrize("fault", ["gone", "error"])
def test_a_refusal_says_what_to_do_by_hand(fault, server, tmp_path):
    server.faults = [fault] * 3
    with pytest.raises(DownloadError, match=r"fetch http\S+ elsewhere, put it at .*a.bin \(sha256"):
        download(entry(server), tmp_path, attempts=2)
    assert len(server.asked) == (1 if fault == "gone" else 2)


def test_no_network(tmp_path):
    file = RemoteFile(subset="all", url="http://127.0.0.1:9/a.bin", md5="0" * 32)
    with pytest.raises(DownloadError, match="Without a network that reaches"):
        download(file, tmp_path, attempts=1)


def test_two_at_once(server, tmp_path):
    server.pause = 0.1
    thread = threading.Thread(target=download, args=(entry(server), tmp_path))
    thread.start()
    while not server.asked:
        time.sleep(0.01)
    with pytest.raises(DownloadError, match="another process"):
        download(entry(server), tmp_path)
    thread.join()
    assert (tmp_path / "all" / "a.bin").read_bytes() == BODY


def write_card(folder, remote, fields="ase"):
    folder.mkdir(exist_ok=True)
    content = {
        "name": folder.name, "title": "t", "url": "https://example.org", "licence": "MIT",
        "citation": "c", "level_of_theory": {"functional": "PBE", "code": "VASP"},
        "elements": ["Li"], "fields": fields, "splits": "none", "defects": [], "remote": remote,
    }  # fmt: skip
    (folder / "card.yaml").write_text(yaml.safe_dump(content))
    return folder / "card.yaml"


def test_kill_and_resume(server, tmp_path):
    server.pause = 0.1
    file = entry(server)
    remote = [{"subset": "all", "url": file.url, "sha256": file.sha256, "size": file.size}]
    card = write_card(tmp_path / "far", remote)
    code = "from mlip.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "pull", str(card), f"folder={tmp_path / 'got'}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    part = tmp_path / "got" / "all" / "a.bin.part"
    end = time.monotonic() + 30
    while time.monotonic() < end and not (part.exists() and part.stat().st_size > 2**18):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "got" / "all" / "a.bin").exists()
    server.pause = 0.0
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "got" / "all" / "a.bin").read_bytes() == BODY
    assert re.fullmatch(r"bytes=\d{5,}-", server.asked[-1])


HUB_FILE = "/datasets/owner/name/resolve/main/val/a.bin"


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        found = self.path == HUB_FILE
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(BODY) if found else 0))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        if self.path == HUB_FILE:  # a body that was not announced would spoil the next answer
            self.wfile.write(BODY)


@pytest.mark.parametrize(("path", "digit"), [("val/a.bin", ""), ("val/a.bin", "0"), ("b.bin", "")])
def test_the_hub_client(path, digit, tmp_path):
    pytest.importorskip("huggingface_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = digit * 64 or hashlib.sha256(BODY).hexdigest()
    remote = [{"subset": "a", "hub": "owner/name", "path": path, "sha256": digest}]
    card = write_card(tmp_path / "far", remote)
    code = "from mlip.cli import main; main()"
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    result = subprocess.run(
        [sys.executable, "-c", code, "data", "pull", str(card), f"folder={tmp_path / 'got'}"],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    if path == "b.bin":
        assert result.returncode == 2
        assert "put it at" in result.stderr
    elif digit:
        assert result.returncode == 2
        assert "but the card says 000" in result.stderr
    else:
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "got" / path).read_bytes() == BODY


def frames_tar(frames):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, some in (("val/one.extxyz", frames[:60]), ("val/two.extxyz", frames[60:])):
            data = "".join(map(to_extxyz, some)).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_tar_is_unpacked_and_frames_chosen(server, tmp_path, capsys):
    from mlip.data.card import load_frames

    frames = load_frames("mlearn_li", "train")
    server.body = frames_tar(frames)
    remote = [
        {"subset": "val", "url": server.url("val.tar.gz"), "size": len(server.body)},
        {"subset": "train", "url": server.url("train.tar.gz")},
    ]
    card = str(write_card(tmp_path / "far", remote))
    with pytest.raises(ValueError, match=r"say subset=NAME.*val \(0 MB\), train"):
        pull(card, folder=tmp_path / "got")
    with pytest.raises(ValueError, match="did you mean 'val'"):
        pull(card, ["vall"], tmp_path / "got")
    output = tmp_path / "some.extxyz"
    arguments = ["subset=val", f"folder={tmp_path / 'got'}", f"output={output}", "limit=20"]
    main(["data", "pull", card, *arguments, "where=max_force<1.0"])
    assert "no checksum" in capsys.readouterr().out
    chosen = list(read(output, "ase"))
    assert len(chosen) == 20
    assert max(abs(frame.labels["forces"]).max() for frame in chosen) < 1.0


@pytest.mark.parametrize(
    "member",
    [
        {"name": "../out.txt"},
        {"name": "/tmp/out.txt"},
        {"name": "a/../../out.txt"},
        {"name": "link", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"name": "hard", "type": tarfile.LNKTYPE, "linkname": "../out.txt"},
        {"name": "pipe", "type": tarfile.FIFOTYPE},
    ],
    ids=lambda member: member["name"],
)
def test_hostile_members_are_refused_and_nothing_left(member, tmp_path):
    path = tmp_path / "in" / "bad.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        good = tarfile.TarInfo("good.txt")
        tar.addfile(good, io.BytesIO())
        info = tarfile.TarInfo(member["name"])
        info.type, info.linkname = member.get("type", tarfile.REGTYPE), member.get("linkname", "")
        tar.addfile(info, io.BytesIO())
    with pytest.raises(ValueError, match="do not use this archive"):
        archive.unpack(path, path.parent / "bad")
    assert [p.name for p in path.parent.iterdir()] == ["bad.tar"]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_truncated_archive(tmp_path):
    whole = frames_tar([])
    (tmp_path / "bad.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        archive.unpack(tmp_path / "bad.tar.gz", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_set_in_the_repository_has_nothing_to_pull():
    with pytest.raises(ValueError, match="nothing to pull"):
        pull("mlearn_li")


def test_frames_of_a_far_set_are_not_in_the_repository(tmp_path):
    from mlip.data.card import load_frames

    card = write_card(tmp_path / "far", [{"subset": "a", "hub": "owner/name", "path": "a.json"}])
    with pytest.raises(ValueError, match="mlip data pull far"):
        load_frames(card, "train")


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def omat_tar(tmp_path, frames, natoms):
    """Two files and metadata.npz in the folder of a subset, as OMat24 is packed."""
    members = {}
    for number, some in enumerate((frames[:5], frames[5:])):
        rows = [real.row(frame, index) for index, frame in enumerate(some)]
        path = real.write_aselmdb(tmp_path / f"data{number}.aselmdb", rows)
        members[f"rattled/data.{number:04d}.aselmdb"] = path.read_bytes()
    held = io.BytesIO()
    np.savez(held, natoms=np.array(natoms))
    return tar_of({**members, "rattled/metadata.npz": held.getvalue()})


@pytest.mark.parametrize("damaged", [False, True])
def test_a_subset_of_omat24_is_read_as_one_folder(damaged, server, tmp_path):
    frames = real.frames()[8:18]
    natoms = [len(frame) for frame in frames]
    server.body = omat_tar(tmp_path, frames, [1, *natoms[1:]] if damaged else natoms)
    remote = [{"subset": "r", "url": server.url("val.tar.gz"), "format": "aselmdb"}]
    card = write_card(tmp_path / "far", remote)
    pulled = pull(card, folder=tmp_path / "got", progress=False)
    assert [path.name for path in pulled.files["r"]] == ["rattled"]
    if damaged:
        with pytest.raises(ValueError, match=r"metadata.npz says 1 for structure 0"):
            list(frames_of(card, pulled))
        return
    found = list(frames_of(card, pulled))
    assert len(found) == 10
    for expected, frame in zip(frames, found, strict=True):
        assert float(frame.labels["energy"]) == real.values(expected)[0]
        np.testing.assert_array_equal(frame.labels["forces"], real.values(expected)[1])
    assert {frame.info["functional"] for frame in found} == {"PBE"}


@pytest.fixture
def mptrj(server, tmp_path):
    """A card of MPtrj whose file is served, and the frames in it."""
    frames = real.frames()
    server.body = json.dumps(real.mptrj(frames)).encode()
    remote = [{"subset": "a", "url": server.url("MPtrj_2022.9_full.json"), "format": "mptrj"}]
    return str(write_card(tmp_path / "far", remote)), frames


@pytest.mark.parametrize("energy", ["uncorrected", "corrected"])
def test_mptrj_is_read_with_its_own_units(energy, mptrj, tmp_path):
    card, frames = mptrj
    output = tmp_path / "some.extxyz"
    some = ["limit=12", "where=atoms<60", f"options={{energy: {energy}}}"]
    main(["data", "pull", card, f"folder={tmp_path / 'got'}", f"output={output}", *some])
    expected = [frame for frame in frames if len(frame) < 60][:12]
    chosen = list(read(output, "ase"))
    assert len(chosen) == 12
    for before, after in zip(expected, chosen, strict=True):
        assert after.info["corrections"] == {"corrected": "MP2020", "uncorrected": "none"}[energy]
        record = real.mptrj_record(before)
        assert float(after.labels["energy"]) == record[f"{energy}_total_energy"]
        np.testing.assert_array_equal(after.labels["forces"], real.values(before)[1])
        np.testing.assert_allclose(after.labels["stress"], real.values(before)[2], rtol=1e-7)


def test_a_limit_alone_stops_reading(mptrj, tmp_path, capsys):
    pulled = pull(mptrj[0], folder=tmp_path / "got", progress=False)
    path = pulled.files["a"][0]
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"damage" + whole[middle:])
    output = tmp_path / "some.extxyz"
    main(["data", "select", str(path), str(output), "limit=5"])
    assert "the first that pass" in capsys.readouterr().out
    assert len(list(read(output, "ase"))) == 5
    with pytest.raises(SystemExit):
        main(["data", "select", str(path), str(tmp_path / "b.extxyz"), "limit=5", "seed=1"])
    assert "the value is not JSON" in capsys.readouterr().err


def test_a_selection_becomes_a_store(mptrj, tmp_path, capsys):
    card, frames = mptrj
    output = tmp_path / "store"
    main(["data", "pull", card, f"folder={tmp_path / 'got'}", f"output={output}", "limit=20"])
    assert "data=store" in capsys.readouterr().out
    store = Store(output)
    assert len(store) == 20
    assert store.manifest.told["functional"] == {"PBE(+U), Materials Project": 20}
    np.testing.assert_array_equal(store[3].labels["forces"], real.values(frames[3])[1])


def test_an_archive_of_another_format_is_named(server, tmp_path):
    server.body = tar_of({"a/readme.txt": b"nothing"})
    remote = [{"subset": "r", "url": server.url("val.tar.gz"), "format": "aselmdb"}]
    card = write_card(tmp_path / "far", remote)
    with pytest.raises(ValueError, match=r"nothing of the format aselmdb \(it holds readme.txt\)"):
        pull(card, folder=tmp_path / "got", progress=False)
