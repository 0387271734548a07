"""The table of structs against the header of this machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

from artfs.fuse.direct import protocol
from artfs.fuse.direct.protocol import STRUCTS, Flag, Opcode, OpenFlag

HEADER = Path("/usr/include/linux/fuse.h")
NEWER = {"FUSE_STATX", "FUSE_HAS_RESEND", "FUSE_NOTIFY_RESEND", "FUSE_UNIQUE_RESEND"}
"""Not in the headers of 7.38 and older."""

CONSTANTS = {
    **{f"FUSE_{opcode.name}": opcode.value for opcode in Opcode},
    **{f"FUSE_{flag.name}": flag.value for flag in Flag},
    **{f"FOPEN_{flag.name}": flag.value for flag in OpenFlag},
    "FUSE_KERNEL_VERSION": protocol.MAJOR,
    "FUSE_ROOT_ID": protocol.ROOT_ID,
    "FUSE_MIN_READ_BUFFER": protocol.MIN_READ_BUFFER,
    "FUSE_DEV_IOC_CLONE": protocol.IOC_CLONE,
    "FUSE_NOTIFY_RESEND": protocol.NOTIFY_RESEND,
    "FUSE_UNIQUE_RESEND": protocol.RESENT,
}
LONGER_IN_THE_HEADER = {"fuse_init_in"}


def source():
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <sys/ioctl.h>", "#include <linux/fuse.h>"]
    lines.append("int main(void) {")
    known = HEADER.read_text()
    there = [name for name in CONSTANTS if name not in NEWER or f"{name}\t" in known or f"{name} " in known]
    lines += [f'printf("{name} %llu\\n", (unsigned long long){name});' for name in there]
    for struct, fields in STRUCTS.items():
        lines.append(f'printf("{struct} %zu\\n", sizeof(struct {struct}));')
        for field, _ in fields:
            lines.append(f'printf("{struct}.{field} %zu\\n", offsetof(struct {struct}, {field}));')
    return "\n".join([*lines, "return 0; }"])


@pytest.mark.skipif(not HEADER.exists() or shutil.which("cc") is None, reason="no linux/fuse.h or no C compiler")
def test_the_table_is_what_the_header_says(tmp_path):
    (tmp_path / "layout.c").write_text(source())
    subprocess.run(["cc", "-o", tmp_path / "layout", tmp_path / "layout.c"], check=True)
    said = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout
    header = {name: int(number) for name, number in (line.split() for line in said.splitlines())}
    assert {name: CONSTANTS[name] for name in CONSTANTS if name in header} == {
        name: number for name, number in header.items() if name in CONSTANTS
    }
    for struct, fields in STRUCTS.items():
        sizes = [protocol._layout_of(fields[:count]).size for count in range(len(fields) + 1)]
        assert sizes[:-1] == [header[f"{struct}.{field}"] for field, _ in fields], struct
        if struct not in LONGER_IN_THE_HEADER:
            assert sizes[-1] == header[struct], struct


def test_opcodes_have_a_counter_each():
    assert max(Opcode) < 64
