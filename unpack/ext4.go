// Reads an ext4 file system without mounting it. Its bytes are a guest's, so each number is checked before it is used;
// e2fsck has looked at it before, but a refusal here never depends on that.

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sort"
)

const (
	ext4Magic       = 0xef53
	magicAt         = 56
	blockBitsAt     = 24
	inodeSizeAt     = 88
	perGroupAt      = 40
	roIncompatAt    = 100
	needsRecovery   = 0x4
	has64Bit        = 0x80
	hasBigAllocs    = 0x200
	incompatKnown   = 0x2 | 0x4 | 0x40 | 0x80 | 0x200 | hasChecksumSeed // file types, recovery, extents, 64 bit, groups
	extentMagic     = 0xf30a
	extentDepthMax  = 5
	extentsMax      = 1 << 22
	unwrittenFrom   = 32768
	folderBytesMax  = 1 << 30
	inodeSizeMax    = 4096
	extentEntrySize = 12
	sizeHighAt      = 108
	formatSocket    = 0xc000
)

type ext4 struct {
	from      io.ReaderAt
	block     int64
	blocks    int64
	perGroup  uint32
	inodes    uint32
	inodeSize int64
	tables    []int64 // first block of each group's inodes
	isDirty   bool
}

func badDisk(format string, arguments ...any) error {
	return refuse("bad_disk", "the disk's file system cannot be read: %s", fmt.Sprintf(format, arguments...))
}

func openExt4(from io.ReaderAt) (*ext4, error) {
	super := make([]byte, superblockBytes)
	if _, err := from.ReadAt(super, superblockAt); err != nil {
		return nil, badDisk("it has no superblock")
	}
	if binary.LittleEndian.Uint16(super[magicAt:]) != ext4Magic {
		return nil, badDisk("it is not ext4")
	}
	incompat := little.Uint32(super[incompatAt:])
	if unknown := incompat &^ incompatKnown; unknown != 0 {
		return nil, badDisk("it has the features %#x, which are not known here", unknown)
	}
	bits := little.Uint32(super[blockBitsAt:])
	e := &ext4{
		from: from, perGroup: little.Uint32(super[perGroupAt:]), inodes: little.Uint32(super[inodesAt:]),
		inodeSize: int64(little.Uint16(super[inodeSizeAt:])), isDirty: incompat&needsRecovery != 0,
	}
	if bits > 6 || e.perGroup == 0 || e.inodes == 0 || e.inodeSize < 128 || e.inodeSize > inodeSizeMax ||
		little.Uint32(super[roIncompatAt:])&hasBigAllocs != 0 {
		return nil, badDisk("its superblock is damaged")
	}
	e.block = 1024 << bits
	e.blocks = int64(little.Uint32(super[4:]))
	size := int64(32)
	if incompat&has64Bit != 0 {
		size = int64(little.Uint16(super[descriptorSizeAt:]))
		e.blocks |= int64(little.Uint32(super[0x150:])) << 32
	}
	if size < 32 || size > 1024 {
		return nil, badDisk("its superblock is damaged")
	}
	groups := int64((e.inodes-1)/e.perGroup + 1)
	descriptors := make([]byte, groups*size)
	if _, err := from.ReadAt(descriptors, (int64(little.Uint32(super[firstBlockAt:]))+1)*e.block); err != nil {
		return nil, badDisk("its groups are missing")
	}
	for ; len(descriptors) > 0; descriptors = descriptors[size:] {
		table := int64(little.Uint32(descriptors[tableLowAt:]))
		if size >= 64 {
			table |= int64(little.Uint32(descriptors[tableHighAt:])) << 32
		}
		e.tables = append(e.tables, table)
	}
	return e, nil
}

func (e *ext4) inode(number uint32) ([]byte, error) {
	if number == 0 || number > e.inodes {
		return nil, badDisk("there is no inode %d", number)
	}
	group, index := (number-1)/e.perGroup, (number-1)%e.perGroup
	raw := make([]byte, e.inodeSize)
	if _, err := e.from.ReadAt(raw, e.tables[group]*e.block+int64(index)*e.inodeSize); err != nil {
		return nil, badDisk("the inode %d cannot be read", number)
	}
	return raw, nil
}

func sizeOfInode(raw []byte) int64 {
	size := int64(little.Uint32(raw[sizeAt:]))
	if format := little.Uint16(raw[modeAt:]) & formatMask; format == formatFile || format == formatDir {
		size |= int64(little.Uint32(raw[sizeHighAt:])) << 32
	}
	return size
}

// An extent is a piece of a file; places between extents are zeros.
type extent struct{ logical, physical, count int64 }

// extentsOf lists those that were written, in the order of the file.
func (e *ext4) extentsOf(raw []byte) ([]extent, error) {
	if little.Uint32(raw[inodeFlagsAt:])&hasExtents == 0 {
		return nil, badDisk("a file has lists of blocks instead of extents; copy that file, then remove the first")
	}
	var found []extent
	var walk func(node []byte, depth int) error
	walk = func(node []byte, depth int) error {
		count, below := int(little.Uint16(node[2:])), int(little.Uint16(node[6:]))
		if little.Uint16(node) != extentMagic || below > extentDepthMax || depth >= 0 && below != depth ||
			(count+1)*extentEntrySize > len(node) {
			return badDisk("a file's extents are damaged")
		}
		for index := 1; index <= count; index++ {
			one := node[index*extentEntrySize:]
			if len(found) > extentsMax {
				return badDisk("a file has too many extents")
			}
			if below > 0 {
				child := make([]byte, e.block)
				at := int64(little.Uint32(one[4:])) | int64(little.Uint16(one[8:]))<<32
				if _, err := e.from.ReadAt(child, at*e.block); err != nil {
					return badDisk("a file's extents are missing")
				}
				if err := walk(child, below-1); err != nil {
					return err
				}
				continue
			}
			length := int64(little.Uint16(one[4:]))
			if length > unwrittenFrom {
				continue
			}
			piece := extent{int64(little.Uint32(one)), int64(little.Uint32(one[8:])) | int64(little.Uint16(one[6:]))<<32, length}
			if piece.physical+piece.count > e.blocks {
				return badDisk("a file lies outside")
			}
			if n := len(found); n > 0 && found[n-1].logical+found[n-1].count > piece.logical {
				return badDisk("a file's extents overlap")
			}
			found = append(found, piece)
		}
		return nil
	}
	return found, walk(raw[blocksAt:blocksAt+blocksBytes], -1)
}

// copyContent writes the whole file, with zeros for its holes.
func (e *ext4) copyContent(raw []byte, to io.Writer, buffer []byte) error {
	size := sizeOfInode(raw)
	if size == 0 {
		return nil
	}
	pieces, err := e.extentsOf(raw)
	if err != nil {
		return err
	}
	written := int64(0)
	zeros := func(until int64) error {
		for index := range buffer {
			buffer[index] = 0
		}
		for written < until {
			part := buffer
			if rest := until - written; rest < int64(len(part)) {
				part = part[:rest]
			}
			if _, err := to.Write(part); err != nil {
				return err
			}
			written += int64(len(part))
		}
		return nil
	}
	for _, piece := range pieces {
		start, end := piece.logical*e.block, (piece.logical+piece.count)*e.block
		if start >= size {
			break
		}
		if end > size {
			end = size
		}
		if written < start {
			if err := zeros(start); err != nil {
				return err
			}
		}
		for written < end {
			part := buffer
			if rest := end - written; rest < int64(len(part)) {
				part = part[:rest]
			}
			if _, err := e.from.ReadAt(part, piece.physical*e.block+written-start); err != nil {
				return badDisk("a file's content cannot be read")
			}
			if _, err := to.Write(part); err != nil {
				return err
			}
			written += int64(len(part))
		}
	}
	return zeros(size)
}

// A name of a directory.
type named struct {
	name   string
	number uint32
}

// namesOf returns them in the order of bytes. The blocks of an index look like empty ones.
func (e *ext4) namesOf(raw []byte) ([]named, error) {
	size := sizeOfInode(raw)
	if size > folderBytesMax {
		return nil, badDisk("a directory is too large")
	}
	pieces, err := e.extentsOf(raw)
	if err != nil {
		return nil, err
	}
	var found []named
	block := make([]byte, e.block)
	for _, piece := range pieces {
		for index := int64(0); index < piece.count && (piece.logical+index)*e.block < size; index++ {
			if _, err := e.from.ReadAt(block, (piece.physical+index)*e.block); err != nil {
				return nil, badDisk("a directory cannot be read")
			}
			for at := 0; at+8 <= len(block); {
				length, count := int(little.Uint16(block[at+4:])), int(block[at+6])
				if length == 0 || length == 65535 {
					length = len(block) - at
				}
				if length < 8 || at+length > len(block) || count+8 > length {
					return nil, badDisk("a directory is damaged")
				}
				number, name := little.Uint32(block[at:]), string(block[at+8:at+8+count])
				at += length
				if number == 0 || name == "." || name == ".." {
					continue
				}
				if !isName(name) {
					return nil, badDisk("a directory holds the name %.100q", name)
				}
				found = append(found, named{name, number})
			}
		}
	}
	sort.Slice(found, func(a, b int) bool { return found[a].name < found[b].name })
	for index := 1; index < len(found); index++ {
		if found[index].name == found[index-1].name {
			return nil, badDisk("a directory holds the name %.100q twice", found[index].name)
		}
	}
	return found, nil
}

func isName(name string) bool {
	for index := 0; index < len(name); index++ {
		if name[index] == '/' || name[index] == 0 {
			return false
		}
	}
	return name != ""
}

func (e *ext4) targetOf(raw []byte, buffer []byte) (string, error) {
	size := sizeOfInode(raw)
	if size == 0 || size > pathBytesMax {
		return "", badDisk("a link has a target of %d bytes", size)
	}
	if size <= shortTargetBytesMax && little.Uint32(raw[inodeFlagsAt:])&hasExtents == 0 {
		return string(raw[blocksAt : blocksAt+size]), nil
	}
	var text limitedText
	if err := e.copyContent(raw, &text, buffer); err != nil {
		return "", err
	}
	return string(text), nil
}

type limitedText []byte

func (t *limitedText) Write(data []byte) (int, error) {
	if len(*t)+len(data) > pathBytesMax {
		return 0, os.ErrInvalid
	}
	*t = append(*t, data...)
	return len(data), nil
}

func deviceOf(raw []byte) (major, minor int64) {
	first, second := little.Uint32(raw[blocksAt:]), little.Uint32(raw[blocksAt+4:])
	if first != 0 || second == 0 {
		return int64(first >> 8 & 0xff), int64(first & 0xff)
	}
	return int64(second >> 8 & 0xfff), int64(second&0xff | second>>12&0xfff00)
}
