"""Reads what an ELF file says about itself: type, segments, dynamic section, symbols, versions it needs.

64-bit little-endian files only, which all targets have. The file may be anybody's: every offset and size is checked.
Source: System V ABI, chapters "Object Files" and "Dynamic Linking"; the GNU symbol versioning of the LSB.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgebit.errors import BuildError

MACHINES = {"aarch64": 183, "x86_64": 62}  # EM_AARCH64, EM_X86_64
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_TLS = 1, 2, 3, 7
PT_GNU_STACK, PT_GNU_RELRO = 0x6474E551, 0x6474E552
PF_X, PF_W = 1, 2
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT = 1, 4, 5, 6, 10, 11
DT_SONAME, DT_TEXTREL, DT_BIND_NOW, DT_FLAGS = 14, 22, 24, 30
DT_GNU_HASH, DT_FLAGS_1, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFEF5, 0x6FFFFFFB, 0x6FFFFFFE, 0x6FFFFFFF
DF_TEXTREL, DF_BIND_NOW, DF_1_NOW = 4, 8, 1
SHT_SYMTAB, SHT_DYNSYM = 2, 11
STB_GLOBAL, STB_WEAK = 1, 2
STT_FUNC = 2

_ENTRIES_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Segment:
    """A row of the program header table."""

    kind: int
    flags: int
    offset: int
    vaddr: int
    file_size: int
    memory_size: int
    align: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A row of the dynamic symbol table."""

    name: str
    is_defined: bool
    is_weak: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Elf:
    """What an ELF file says about itself."""

    machine: int
    type: int
    segments: tuple[Segment, ...]
    dynamic: tuple[tuple[int, int], ...] = ()  # tag, value
    needed: tuple[str, ...] = ()
    soname: str | None = None
    symbols: tuple[Symbol, ...] = ()  # of the dynamic table, global and weak ones
    versions: tuple[tuple[str, str], ...] = field(default=())  # library, version: ("libc.so.6", "GLIBC_2.34")

    def segments_of(self, kind: int) -> tuple[Segment, ...]:
        """The segments of one kind."""
        return tuple(segment for segment in self.segments if segment.kind == kind)

    def flag(self, tag: int, bit: int) -> bool:
        """Whether `bit` is set in the dynamic entry `tag`."""
        return any(found == tag and value & bit for found, value in self.dynamic)

    def has(self, tag: int) -> bool:
        """Whether there is a dynamic entry `tag`."""
        return any(found == tag for found, _ in self.dynamic)


def read_elf(data: bytes, where: str) -> Elf:
    """Read the ELF file in `data`; `where` names it in messages. Raises BuildError where it is none or is damaged."""
    return _Reader(data, where).read()


def function_addresses(data: bytes, where: str) -> dict[str, int]:
    """Where each function lies in memory, hidden ones too: from the full symbol table, which stripping takes away.

    Empty where there is none. Raises BuildError where the file is no ELF file or is damaged.
    """
    return _Reader(data, where).functions()


class _Reader:
    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where = data, where
        self._segments: tuple[Segment, ...] = ()

    def read(self) -> Elf:
        if self._data[:4] != b"\x7fELF":
            raise BuildError(f"{self._where} is not an ELF file: it was not built for Linux")
        if self._data[4:7] != b"\x02\x01\x01":
            raise BuildError(f"{self._where} is not a 64-bit little-endian ELF file; edgebit's targets have no others")
        fields = self._unpack("<HHIQQQIHHHHHH", 16, "the header")
        kind, machine, phoff, phentsize, phnum = fields[0], fields[1], fields[4], fields[8], fields[9]
        if phnum and phentsize != 56:
            raise self._damaged(f"program headers of {phentsize} bytes")
        self._segments = tuple(self._segment(phoff + 56 * i) for i in range(phnum))
        dynamic = self._dynamic()
        entries = dict(dynamic)
        strings = self._strings(entries)
        needed = tuple(self._text(strings, value) for tag, value in dynamic if tag == DT_NEEDED)
        return Elf(
            machine=machine,
            type=kind,
            segments=self._segments,
            dynamic=dynamic,
            needed=needed,
            soname=self._text(strings, entries[DT_SONAME]) if DT_SONAME in entries else None,
            symbols=self._symbols(entries, strings),
            versions=self._versions(entries, strings),
        )

    def functions(self) -> dict[str, int]:
        self.read()
        found: dict[str, int] = {}
        sections = list(self._sections())
        for kind, offset, size, link in sections:
            if kind != SHT_SYMTAB:
                continue
            if link >= len(sections) or size // 24 > _ENTRIES_MAX:
                raise self._damaged(f"a symbol table of {size} bytes with strings in section {link}")
            _, start, length, _ = sections[link]
            strings = self._data[start : start + length]
            for i in range(size // 24):
                name, info, _, section, address, _ = self._unpack("<IBBHQQ", offset + 24 * i, "a symbol")
                if info & 15 == STT_FUNC and section != 0:
                    found[self._text(strings, name)] = address
        return found

    def _sections(self) -> Iterator[tuple[int, int, int, int]]:
        """Kind, offset, size and link of each section."""
        offset, entry_size, count = (
            self._unpack(form, at, "the header")[0] for form, at in (("<Q", 40), ("<H", 58), ("<H", 60))
        )
        if count and entry_size != 64:
            raise self._damaged(f"section headers of {entry_size} bytes")
        for i in range(count):
            _, kind, _, _, at, size, link = self._unpack("<IIQQQQI", offset + 64 * i, "a section header")
            yield kind, at, size, link

    def _damaged(self, what: str) -> BuildError:
        return BuildError(f"{self._where} is a damaged ELF file: {what}")

    def _unpack(self, form: str, offset: int, what: str) -> tuple[int, ...]:
        if not 0 <= offset <= len(self._data) - struct.calcsize(form):
            raise self._damaged(f"{what} lies at byte {offset}, the file has {len(self._data)}")
        return struct.unpack_from(form, self._data, offset)

    def _segment(self, offset: int) -> Segment:
        kind, flags, at, vaddr, _, file_size, memory_size, align = self._unpack("<IIQQQQQQ", offset, "a program header")
        if kind != PT_GNU_STACK and at + file_size > len(self._data):
            raise self._damaged(f"a segment ends at byte {at + file_size}, the file has {len(self._data)}")
        return Segment(kind, flags, at, vaddr, file_size, memory_size, align)

    def _file_offset(self, vaddr: int, what: str) -> int:
        for segment in self._segments:
            if segment.kind == PT_LOAD and segment.vaddr <= vaddr < segment.vaddr + segment.file_size:
                return segment.offset + vaddr - segment.vaddr
        raise self._damaged(f"{what} lies at address {vaddr:#x}, which no segment holds")

    def _dynamic(self) -> tuple[tuple[int, int], ...]:
        entries = []
        for segment in self._segments:
            if segment.kind != PT_DYNAMIC:
                continue
            for i in range(min(segment.file_size // 16, _ENTRIES_MAX)):
                tag, value = self._unpack("<QQ", segment.offset + 16 * i, "a dynamic entry")
                if tag == 0:
                    break
                entries.append((tag, value))
        return tuple(entries)

    def _strings(self, entries: dict[int, int]) -> bytes:
        if DT_STRTAB not in entries:
            return b""
        start, size = self._file_offset(entries[DT_STRTAB], "the string table"), entries.get(DT_STRSZ, 0)
        if start + size > len(self._data):
            raise self._damaged("the string table passes the file's end")
        return self._data[start : start + size]

    def _text(self, strings: bytes, at: int) -> str:
        end = strings.find(b"\0", at)
        if at >= len(strings) or end < 0:
            raise self._damaged(f"a name lies at byte {at} of the string table, which has {len(strings)}")
        return strings[at:end].decode("utf-8", "replace")

    def _symbols(self, entries: dict[int, int], strings: bytes) -> tuple[Symbol, ...]:
        if DT_SYMTAB not in entries:
            return ()
        start = self._file_offset(entries[DT_SYMTAB], "the symbol table")
        symbols = []
        for i in range(1, self._symbol_count(entries)):
            name, info, _, section, _, _ = self._unpack("<IBBHQQ", start + 24 * i, "a symbol")
            if info >> 4 in (STB_GLOBAL, STB_WEAK):
                symbols.append(Symbol(self._text(strings, name), section != 0, info >> 4 == STB_WEAK))
        return tuple(symbols)

    def _symbol_count(self, entries: dict[int, int]) -> int:
        """The dynamic symbol table does not say its length; a hash table does, or the section headers."""
        if DT_HASH in entries:
            count = self._unpack("<II", self._file_offset(entries[DT_HASH], "the hash table"), "the hash table")[1]
        else:
            count = self._symbol_count_of_sections()
        if count > _ENTRIES_MAX:
            raise self._damaged(f"{count} symbols")
        return count

    def _symbol_count_of_sections(self) -> int:
        for kind, _, size, _ in self._sections():
            if kind == SHT_DYNSYM:
                return size // 24
        raise self._damaged("its symbols cannot be counted: neither a hash table nor section headers")

    def _versions(self, entries: dict[int, int], strings: bytes) -> tuple[tuple[str, str], ...]:
        if DT_VERNEED not in entries:
            return ()
        versions = []
        at = self._file_offset(entries[DT_VERNEED], "the version table")
        for _ in range(min(entries.get(DT_VERNEEDNUM, 0), _ENTRIES_MAX)):
            _, count, library, first, following = self._unpack("<HHIII", at, "a version")
            item = at + first
            for _ in range(count):
                _, _, _, name, next_item = self._unpack("<IHHII", item, "a version")
                versions.append((self._text(strings, library), self._text(strings, name)))
                if len(versions) > _ENTRIES_MAX:
                    raise self._damaged(f"more than {_ENTRIES_MAX} versions")
                item += next_item
            at += following
        return tuple(versions)
