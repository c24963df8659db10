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
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_TLS = 1, 2, 3, 4, 7
PT_GNU_STACK, PT_GNU_RELRO = 0x6474E551, 0x6474E552
PF_X, PF_W = 1, 2
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT = 1, 4, 5, 6, 10, 11
DT_SONAME, DT_RPATH, DT_TEXTREL, DT_BIND_NOW, DT_RUNPATH, DT_FLAGS = 14, 15, 22, 24, 29, 30
DT_RELR, DT_ANDROID_RELR = 36, 0x6FFFE000
DT_VERSYM, DT_GNU_HASH, DT_FLAGS_1 = 0x6FFFFFF0, 0x6FFFFEF5, 0x6FFFFFFB
DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
DF_TEXTREL, DF_BIND_NOW, DF_1_NOW = 4, 8, 1
SHT_SYMTAB, SHT_DYNSYM = 2, 11
STB_GLOBAL, STB_WEAK = 1, 2
STT_FUNC = 2

_ENTRIES_MAX = 1 << 16


def machine_name(number: int) -> str:
    """As `uname -m` has it; of machines that are not among MACHINES, the number."""
    return next((name for name, known in MACHINES.items() if known == number), f"ELF machine {number}")


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
    version: str | None = None  # that an undefined one must have: "GLIBC_2.34", "LIBC"


@dataclass(frozen=True, slots=True)
class Note:
    """What a tool or libc says of the file: owner "GNU", "Android"."""

    owner: str
    kind: int
    content: bytes


@dataclass(frozen=True, slots=True)
class SectionHeaders:
    """Where the section header table is said to be; it is not read."""

    offset: int
    entry_size: int
    count: int
    names: int  # index of the section with their names; 0: none


@dataclass(frozen=True, kw_only=True, slots=True)
class Elf:
    """What an ELF file says about itself."""

    machine: int
    type: int
    segments: tuple[Segment, ...]
    dynamic: tuple[tuple[int, int], ...] = ()  # tag, value
    needed: tuple[str, ...] = ()
    soname: str | None = None
    run_paths: tuple[str, ...] = ()  # RPATH and RUNPATH, as they stand
    interpreter: str | None = None  # the loader of a program that is not static
    notes: tuple[Note, ...] = ()
    section_headers: SectionHeaders = SectionHeaders(0, 0, 0, 0)
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
        versions = self._versions(entries, strings)
        needed = tuple(self._text(strings, value) for tag, value in dynamic if tag == DT_NEEDED)
        return Elf(
            machine=machine,
            type=kind,
            segments=self._segments,
            dynamic=dynamic,
            needed=needed,
            soname=self._text(strings, entries[DT_SONAME]) if DT_SONAME in entries else None,
            run_paths=tuple(self._text(strings, value) for tag, value in dynamic if tag in (DT_RPATH, DT_RUNPATH)),
            interpreter=self._interpreter(),
            notes=tuple(self._notes()),
            section_headers=SectionHeaders(fields[5], fields[10], fields[11], fields[12]),
            symbols=self._symbols(entries, strings, {index: name for _, name, index in versions}),
            versions=tuple((library, name) for library, name, _ in versions),
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

    def _interpreter(self) -> str | None:
        for segment in self._segments:
            if segment.kind == PT_INTERP:
                path = self._data[segment.offset : segment.offset + segment.file_size]
                return path.partition(b"\0")[0].decode("utf-8", "replace")
        return None

    def _notes(self) -> Iterator[Note]:
        for segment in self._segments:
            if segment.kind != PT_NOTE:
                continue
            step = 8 if segment.align == 8 else 4
            at, end = segment.offset, segment.offset + segment.file_size
            while at + 12 <= end:
                owner_size, size, kind = self._unpack("<III", at, "a note")
                content_at = at + (12 + owner_size + step - 1) // step * step
                if content_at + size > end:
                    raise self._damaged("a note passes its segment's end")
                owner = self._data[at + 12 : at + 12 + owner_size].rstrip(b"\0").decode("utf-8", "replace")
                yield Note(owner, kind, self._data[content_at : content_at + size])
                at = content_at + (size + step - 1) // step * step

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

    def _symbols(self, entries: dict[int, int], strings: bytes, versions: dict[int, str]) -> tuple[Symbol, ...]:
        if DT_SYMTAB not in entries:
            return ()
        start = self._file_offset(entries[DT_SYMTAB], "the symbol table")
        indices = self._file_offset(entries[DT_VERSYM], "the symbols' versions") if DT_VERSYM in entries else None
        symbols = []
        for i in range(1, self._symbol_count(entries)):
            name, info, _, section, _, _ = self._unpack("<IBBHQQ", start + 24 * i, "a symbol")
            if info >> 4 in (STB_GLOBAL, STB_WEAK):
                version = None
                if section == 0 and indices is not None:
                    version = versions.get(self._unpack("<H", indices + 2 * i, "a symbol's version")[0] & 0x7FFF)
                symbols.append(Symbol(self._text(strings, name), section != 0, info >> 4 == STB_WEAK, version))
        return tuple(symbols)

    def _symbol_count(self, entries: dict[int, int]) -> int:
        """The dynamic symbol table does not say its length; a hash table does, or the section headers."""
        if DT_HASH in entries:
            count = self._unpack("<II", self._file_offset(entries[DT_HASH], "the hash table"), "the hash table")[1]
        elif DT_GNU_HASH in entries:
            count = self._symbol_count_of_gnu_hash(self._file_offset(entries[DT_GNU_HASH], "the hash table"))
        else:
            count = self._symbol_count_of_sections()
        if count > _ENTRIES_MAX:
            raise self._damaged(f"{count} symbols")
        return count

    def _symbol_count_of_gnu_hash(self, at: int) -> int:
        """One past the last symbol of the last chain; those that the table leaves out come first."""
        n_buckets, first, bloom_words, _ = self._unpack("<IIII", at, "the hash table")
        buckets = at + 16 + 8 * bloom_words
        if n_buckets > _ENTRIES_MAX:
            raise self._damaged(f"a hash table of {n_buckets} buckets")
        last = max((self._unpack("<I", buckets + 4 * i, "a hash bucket")[0] for i in range(n_buckets)), default=0)
        if last < first:  # no bucket has any: all symbols are undefined, and nothing says how many there are
            return self._symbol_count_of_sections()
        chains = buckets + 4 * n_buckets - 4 * first
        while last < _ENTRIES_MAX and self._unpack("<I", chains + 4 * last, "a hash chain")[0] & 1 == 0:
            last += 1
        return last + 1

    def _symbol_count_of_sections(self) -> int:
        for kind, _, size, _ in self._sections():
            if kind == SHT_DYNSYM:
                return size // 24
        raise self._damaged("its symbols cannot be counted: neither a hash table nor section headers")

    def _versions(self, entries: dict[int, int], strings: bytes) -> tuple[tuple[str, str, int], ...]:
        """Library, version, and the number that the symbols' table has for it."""
        if DT_VERNEED not in entries:
            return ()
        versions = []
        at = self._file_offset(entries[DT_VERNEED], "the version table")
        for _ in range(min(entries.get(DT_VERNEEDNUM, 0), _ENTRIES_MAX)):
            _, count, library, first, following = self._unpack("<HHIII", at, "a version")
            item = at + first
            for _ in range(count):
                _, _, index, name, next_item = self._unpack("<IHHII", item, "a version")
                versions.append((self._text(strings, library), self._text(strings, name), index & 0x7FFF))
                if len(versions) > _ENTRIES_MAX:
                    raise self._damaged(f"more than {_ENTRIES_MAX} versions")
                item += next_item
            at += following
        return tuple(versions)
