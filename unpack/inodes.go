// Writes owners, modes, times and device numbers into the inodes of a new ext4 disk. mke2fs has copied only what the
// tree has; an inode's time of last access is its number in our table.

package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
)

// Offsets in the superblock, in a group's descriptor and in an inode; ext4's documentation has the names.
const (
	superblockAt     = 1024
	superblockBytes  = 1024
	inodesAt         = 0
	firstBlockAt     = 20
	modifiedAt       = 44
	writtenAt        = 48
	groupInodesAt    = 40
	checkedAt        = 64
	incompatAt       = 96
	uuidAt           = 104
	descriptorSizeAt = 254
	kilobytesAt      = 376
	checksumSeedAt   = 624
	checksumAt       = 1020
	hasChecksumSeed  = 0x2000

	tableLowAt   = 8
	flagsAt      = 18
	unusedLowAt  = 28
	tableHighAt  = 40
	unusedHighAt = 50
	isUnused     = 1

	modeAt          = 0
	uidAt           = 2
	sizeAt          = 4
	accessedAt      = 8
	changedAt       = 12
	inodeModifiedAt = 16
	gidAt           = 24
	linksAt         = 26
	inodeFlagsAt    = 32
	blocksAt        = 40
	blocksBytes     = 60
	generationAt    = 100
	uidHighAt       = 120
	gidHighAt       = 122
	sumLowAt        = 124
	sumHighAt       = 130
	changedMoreAt   = 132
	modifiedMoreAt  = 136
	accessedMoreAt  = 140

	hasExtents = 0x80000
	// A longer target of a symbolic link takes a block, as a file's content does.
	shortTargetBytesMax = 59

	rootInode   = 2
	lostInode   = 11
	formatMask  = 0xf000
	formatPipe  = 0x1000
	formatChar  = 0x2000
	formatDir   = 0x4000
	formatBlock = 0x6000
	formatFile  = 0x8000
	formatLink  = 0xa000
)

var formats = map[kind]uint16{
	aFile: formatFile, aFolder: formatDir, aSymlink: formatLink, aChar: formatChar, aBlock: formatBlock, aPipe: formatPipe,
}

var (
	little     = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// sum continues ext4's checksum, which has no inversion at its ends.
func sum(seed uint32, data []byte) uint32 { return ^crc32.Update(^seed, castagnoli, data) }

type patched struct {
	// inodes has the inode of each number of the table.
	inodes map[uint32]uint32
	// hasOthers is set if an inode is not of the kind that its directories say.
	hasOthers bool
}

type patcher struct {
	file  *os.File
	seed  uint32
	table []*inode
	patched
}

func describeInodes(file *os.File, table []*inode) (patched, error) {
	super := make([]byte, superblockBytes)
	if _, err := file.ReadAt(super, superblockAt); err != nil {
		return patched{}, err
	}
	p := patcher{file: file, table: table, patched: patched{inodes: make(map[uint32]uint32, len(table))}}
	p.seed = sum(^uint32(0), super[uuidAt:uuidAt+16])
	if little.Uint32(super[incompatAt:])&hasChecksumSeed != 0 {
		p.seed = little.Uint32(super[checksumSeedAt:])
	}
	perGroup := little.Uint32(super[groupInodesAt:])
	groups := little.Uint32(super[inodesAt:]) / perGroup
	size := int64(little.Uint16(super[descriptorSizeAt:]))
	descriptors := make([]byte, int64(groups)*size)
	if _, err := file.ReadAt(descriptors, (int64(little.Uint32(super[firstBlockAt:]))+1)*blockBytes); err != nil {
		return patched{}, err
	}
	for group := uint32(0); group < groups; group++ {
		one := descriptors[int64(group)*size:][:size]
		if little.Uint16(one[flagsAt:])&isUnused != 0 {
			continue
		}
		used := perGroup - (uint32(little.Uint16(one[unusedLowAt:])) | uint32(little.Uint16(one[unusedHighAt:]))<<16)
		block := int64(little.Uint32(one[tableLowAt:])) | int64(little.Uint32(one[tableHighAt:]))<<32
		if err := p.describeGroup(block*blockBytes, group*perGroup+1, used); err != nil {
			return patched{}, err
		}
	}
	if len(p.inodes) != len(table) {
		return patched{}, fmt.Errorf("the disk has %d of %d files", len(p.inodes), len(table))
	}
	return p.patched, nil
}

// describeGroup changes one part of the inode table.
func (p *patcher) describeGroup(at int64, first, used uint32) error {
	inodes := make([]byte, int64(used)*inodeBytes)
	if _, err := p.file.ReadAt(inodes, at); err != nil {
		return err
	}
	for index := uint32(0); index < used; index++ {
		raw := inodes[int64(index)*inodeBytes:][:inodeBytes]
		number := first + index
		if number != rootInode && number < lostInode || little.Uint16(raw[linksAt:]) == 0 {
			continue
		}
		if number == lostInode {
			setTimes(raw, clock, 0)
		} else if err := p.describe(raw, number); err != nil {
			return err
		}
		p.seal(raw, number)
	}
	_, err := p.file.WriteAt(inodes, at)
	return err
}

func (p *patcher) describe(raw []byte, number uint32) error {
	mark := little.Uint32(raw[accessedAt:])
	if number == rootInode {
		mark = firstNumber
	}
	if mark < firstNumber || mark-firstNumber >= uint32(len(p.table)) || p.inodes[mark] != 0 {
		return fmt.Errorf("the disk's inode %d has no place in the table", number)
	}
	p.inodes[mark] = number
	said := p.table[mark-firstNumber]
	wanted, format := formats[said.kind], little.Uint16(raw[modeAt:])&formatMask
	switch {
	case wanted == format:
	case format == formatPipe && (wanted == formatChar || wanted == formatBlock):
		p.hasOthers = true
		setDevice(raw[blocksAt:][:blocksBytes], said.major, said.minor)
	case format == formatFile && wanted == formatLink:
		p.hasOthers = true
		if len(said.target) <= shortTargetBytesMax {
			setTarget(raw, said.target)
		}
	default:
		return fmt.Errorf("the disk's inode %d is of another kind", number)
	}
	little.PutUint16(raw[modeAt:], wanted|uint16(said.mode))
	little.PutUint16(raw[uidAt:], uint16(said.uid))
	little.PutUint16(raw[uidHighAt:], uint16(said.uid>>16))
	little.PutUint16(raw[gidAt:], uint16(said.gid))
	little.PutUint16(raw[gidHighAt:], uint16(said.gid>>16))
	setTimes(raw, said.seconds, said.nanoseconds)
	return nil
}

// setTimes sets all but the time of creation.
func setTimes(raw []byte, seconds int64, nanoseconds uint32) {
	more := nanoseconds<<2 | uint32((seconds-int64(int32(seconds)))>>32)&3
	for _, at := range []int{accessedAt, changedAt, inodeModifiedAt} {
		little.PutUint32(raw[at:], uint32(seconds))
	}
	for _, at := range []int{accessedMoreAt, changedMoreAt, modifiedMoreAt} {
		little.PutUint32(raw[at:], more)
	}
}

// setTarget makes a link of an empty file.
func setTarget(raw []byte, target string) {
	little.PutUint32(raw[inodeFlagsAt:], little.Uint32(raw[inodeFlagsAt:])&^hasExtents)
	little.PutUint32(raw[sizeAt:], uint32(len(target)))
	blocks := raw[blocksAt:][:blocksBytes]
	for index := range blocks {
		blocks[index] = 0
	}
	copy(blocks, target)
}

// setDevice writes numbers in the old form if they fit, as the kernel does.
func setDevice(blocks []byte, major, minor uint32) {
	for index := range blocks {
		blocks[index] = 0
	}
	if major < 256 && minor < 256 {
		little.PutUint32(blocks, major<<8|minor)
	} else {
		little.PutUint32(blocks[4:], minor&0xff|major<<8|(minor&^0xff)<<12)
	}
}

// seal writes an inode's checksum.
func (p *patcher) seal(raw []byte, number uint32) {
	little.PutUint16(raw[sumLowAt:], 0)
	little.PutUint16(raw[sumHighAt:], 0)
	var text [4]byte
	little.PutUint32(text[:], number)
	value := sum(sum(sum(p.seed, text[:]), raw[generationAt:generationAt+4]), raw)
	little.PutUint16(raw[sumLowAt:], uint16(value))
	little.PutUint16(raw[sumHighAt:], uint16(value>>16))
}

// fixClock sets what programs have written into the superblock about when they ran, and how much they wrote.
func fixClock(file *os.File) error {
	super := make([]byte, superblockBytes)
	if _, err := file.ReadAt(super, superblockAt); err != nil {
		return err
	}
	for _, at := range []int{writtenAt, checkedAt} {
		little.PutUint32(super[at:], clock)
	}
	little.PutUint32(super[modifiedAt:], 0)
	little.PutUint64(super[kilobytesAt:], 0)
	little.PutUint32(super[checksumAt:], sum(^uint32(0), super[:checksumAt]))
	_, err := file.WriteAt(super, superblockAt)
	return err
}
