"""Writes small ELF files for tests: whole as far as a checker reads, with one thing wrong where a test says so."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgebit import elf

DATA_AT = 0x10000  # of the writable segment, in the file and in memory
ANDROID_24 = elf.Note("Android", 1, struct.pack("<I", 24))


@dataclass(kw_only=True)
class ElfFile:
    """A shared library for AArch64 that Android's loader takes, but for what is said here."""

    type: int = elf.ET_DYN
    machine: int = elf.MACHINES["aarch64"]
    interpreter: str | None = None
    needed: Sequence[str] = ("libc.so",)
    soname: str | None = "libx.so"
    imported: Sequence[tuple[str, str | None]] = (("puts", "LIBC"),)  # name, version
    weak: Sequence[str] = ()  # imported too, without a version
    exported: Sequence[str] = ("eb_one",)
    gnu_hash: bool = True
    hash: bool = False
    dynamic: Sequence[tuple[int, int]] = ()  # further entries
    run_path: str | None = None
    rpath: str | None = None
    notes: Sequence[elf.Note] = (ANDROID_24,)
    align: int = 0x4000
    data_size: int = 64
    relro: tuple[int, int] | None = None  # address, size
    tls: bool = False
    section_headers: tuple[int, int, int] = (3, 64, 2)  # count, bytes of each, index of the names
    _strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))

    def to_bytes(self) -> bytes:
        names = [*self.imported, *((name, None) for name in self.weak)]
        symbols = bytes(24)
        for name, _ in names:
            info = (elf.STB_WEAK if name in self.weak else elf.STB_GLOBAL) << 4
            symbols += struct.pack("<IBBHQQ", self._text(name), info, 0, 0, 0, 0)
        for name in self.exported:
            symbols += struct.pack("<IBBHQQ", self._text(name), elf.STB_GLOBAL << 4 | 2, 0, 1, 64, 4)
        count, first = len(symbols) // 24, 1 + len(names)
        versions = sorted({version for _, version in names if version})
        indices = [0, *(versions.index(version) + 2 if version else 1 for _, version in names)]
        indices += [1] * len(self.exported)
        items = b"".join(
            struct.pack("<IHHII", 0, 0, i + 2, self._text(version), 16 if i + 1 < len(versions) else 0)
            for i, version in enumerate(versions)
        )
        library = self._text(self.needed[0] if self.needed else "libc.so")

        tables: list[tuple[int, bytes]] = [(elf.DT_SYMTAB, symbols)]
        if versions:
            tables.append((elf.DT_VERSYM, struct.pack(f"<{count}H", *indices)))
            tables.append((elf.DT_VERNEED, struct.pack("<HHIII", 1, len(versions), library, 16, 0) + items))
        if self.hash:
            tables.append((elf.DT_HASH, struct.pack("<IIII", 1, count, 0, 0) + bytes(4 * count)))
        if self.gnu_hash:
            chain = [2 * i for i in range(len(self.exported))]
            chain[-1:] = [chain[-1] | 1] if chain else []
            bucket = first if self.exported else 0
            tables.append((elf.DT_GNU_HASH, struct.pack("<IIIIQI", 1, first, 1, 0, 0, bucket) + _words(chain)))
        entries = [(elf.DT_NEEDED, self._text(name)) for name in self.needed]
        entries += [(elf.DT_VERNEEDNUM, 1)] if versions else []
        for tag, text in ((elf.DT_SONAME, self.soname), (elf.DT_RUNPATH, self.run_path), (elf.DT_RPATH, self.rpath)):
            entries += [(tag, self._text(text))] if text is not None else []
        tables.append((elf.DT_STRTAB, bytes(self._strings)))
        return self._lay_out(tables, [*entries, (elf.DT_STRSZ, len(self._strings)), *self.dynamic])

    def _lay_out(self, tables: Sequence[tuple[int, bytes]], entries: list[tuple[int, int]]) -> bytes:
        body, at = b"", 64 + 56 * 10
        places: dict[str, tuple[int, int]] = {}
        for tag, content in tables:
            body += bytes(-(at + len(body)) % 8)
            entries.append((tag, at + len(body)))
            body += content
        entries.append((0, 0))
        parts = {"dynamic": b"".join(struct.pack("<QQ", *entry) for entry in entries), "note": self._notes_as_bytes()}
        if self.interpreter is not None:
            parts["interpreter"] = self.interpreter.encode() + b"\0"
        for name, content in parts.items():
            body += bytes(-(at + len(body)) % 8)
            places[name] = (at + len(body), len(content))
            body += content
        body += bytes(-(at + len(body)) % 8)
        sections_at, (sections, entry_size, names_at) = at + len(body), self.section_headers
        if sections:
            symbols = struct.pack("<IIQQQQIIQQ", 0, elf.SHT_DYNSYM, 0, 0, 0, len(tables[0][1]), 0, 0, 8, 24)
            body += bytes(entry_size) + symbols + bytes(max(0, (sections - 2) * entry_size))

        end = at + len(body)
        assert end <= DATA_AT
        data_end = self.data_size
        segments = [
            (elf.PT_LOAD, 5, 0, end, end, self.align),
            (elf.PT_LOAD, 6, DATA_AT, data_end, data_end, self.align),
            (elf.PT_DYNAMIC, 4, *_both(places["dynamic"]), 8),
            (elf.PT_NOTE, 4, *_both(places["note"]), 4),
            (elf.PT_GNU_STACK, 6, 0, 0, 0, 16),
        ]
        if self.interpreter is not None:
            segments.append((elf.PT_INTERP, 4, *_both(places["interpreter"]), 1))
        if self.relro is not None:
            address, size = self.relro
            segments.append((elf.PT_GNU_RELRO, 4, address, size, size, 1))
        if self.tls:
            segments.append((elf.PT_TLS, 4, DATA_AT, 8, 8, 8))
        head = b"\x7fELF\x02\x01\x01" + bytes(9)
        head += struct.pack(
            "<HHIQQQIHHHHHH", self.type, self.machine, 1, 64, 64, sections_at if sections else 0, 0, 64, 56,
            len(segments), entry_size, sections, names_at,
        )  # fmt: skip
        for kind, flags, offset, file_size, memory_size, align in segments:
            head += struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, file_size, memory_size, align)
        whole = head + bytes(at - len(head)) + body
        return whole + bytes(DATA_AT - len(whole)) + bytes(self.data_size)

    def _notes_as_bytes(self) -> bytes:
        out = b""
        for note in self.notes:
            owner = note.owner.encode() + b"\0"
            out += struct.pack("<III", len(owner), len(note.content), note.kind)
            out += owner + bytes(-len(owner) % 4) + note.content + bytes(-len(note.content) % 4)
        return out

    def _text(self, text: str) -> int:
        at = len(self._strings)
        self._strings += text.encode() + b"\0"
        return at


def _both(place: tuple[int, int]) -> tuple[int, int, int]:
    """Offset, and the same size in the file and in memory."""
    return place[0], place[1], place[1]


def _words(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)
