// Discards unused blocks of the root filesystem, so that the host frees them.
//
// The kernel remembers which block groups it has discarded, and repeats only those in which blocks were freed
// since. A template discards all of its own before it is frozen, so a clone has little to do. Groups that were
// never used take no space on the host and are skipped: discarding them would make the host allocate tables for
// them.

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"bhatti/agent/wire"
)

const (
	ioctlTrim = 0xc0185879 // FITRIM
	// trimLeast is the host's unit; it frees nothing smaller.
	trimLeast = 64 << 10
	// trimStepBytes is the range of one call, which cannot be interrupted.
	trimStepBytes = 1 << 30
	// quiesceTrimBudget limits the time that a stop spends on this.
	quiesceTrimBudget = 2 * time.Second
)

// trim is an operation of its own for a machine that keeps running: before it is copied or paused.
func (a *agent) trim(s *stream, payload []byte) {
	var request wire.Trim
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	go func() {
		syscall.Sync()
		if err := a.machine.trim(time.Duration(request.BudgetMs) * time.Millisecond); err != nil {
			s.fail(asError(err))
			return
		}
		a.scrub(request.UntouchedMib)
		s.succeed(wire.Empty{})
	}()
}

// trimRoot discards free blocks of the root filesystem until the time is over; a later call does the rest. Blocks
// deleted since the last sync are not free yet.
func trimRoot(budget time.Duration) error {
	end := time.Now().Add(budget)
	layout, err := readLayout(rootDevice)
	if err != nil {
		return err
	}
	root, err := syscall.Open("/", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(root)
	for _, part := range layout.usedParts() {
		if !time.Now().Before(end) {
			return nil
		}
		part := [3]uint64{part.start, part.length, trimLeast}
		err := ioctl(root, ioctlTrim, unsafe.Pointer(&part))
		switch err {
		case nil:
		case syscall.EINTR:
		case syscall.EOPNOTSUPP: // Its disk does not support discarding.
			return nil
		default:
			return os.NewSyscallError("trim the root filesystem", err)
		}
	}
	return nil
}

// part is a range of the filesystem, in bytes.
type part struct{ start, length uint64 }

// blockLayout is the content of ext4's superblock and group table.
type blockLayout struct {
	blockBytes, firstBlock, blocksPerGroup, blocks uint64
	// isUnused tells for each group that no block was ever allocated in it; nil if the table has an unknown format.
	isUnused []bool
}

func readLayout(device string) (blockLayout, error) {
	file, err := os.Open(device)
	if err != nil {
		return blockLayout{}, err
	}
	defer file.Close()
	var superblock [1024]byte
	if _, err := file.ReadAt(superblock[:], 1024); err != nil {
		return blockLayout{}, fmt.Errorf("read the superblock: %w", err)
	}
	layout, groups, groupBytes, err := parseSuperblock(superblock[:])
	if err != nil || groups == 0 {
		return layout, err
	}
	table := make([]byte, groups*groupBytes)
	if _, err := file.ReadAt(table, int64((layout.firstBlock+1)*layout.blockBytes)); err != nil {
		return blockLayout{}, fmt.Errorf("read the table of groups: %w", err)
	}
	const flagsAt, blocksUninitialised = 0x12, 0x2
	layout.isUnused = make([]bool, groups)
	for group := range layout.isUnused {
		flags := binary.LittleEndian.Uint16(table[uint64(group)*groupBytes+flagsAt:])
		layout.isUnused[group] = flags&blocksUninitialised != 0
	}
	return layout, nil
}

// parseSuperblock also returns the number of groups in the table and the bytes of each; none if the table is not
// contiguous.
func parseSuperblock(superblock []byte) (layout blockLayout, groups, groupBytes uint64, err error) {
	word := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(superblock[at:])) }
	const (
		magic             = 0xef53
		featureMetaGroups = 0x10
		feature64Bit      = 0x80
		groupsMax         = 1 << 16
	)
	if binary.LittleEndian.Uint16(superblock[0x38:]) != magic || word(0x18) > 6 || word(0x20) == 0 {
		return layout, 0, 0, fmt.Errorf("%s is not an ext4 filesystem", rootDevice)
	}
	layout = blockLayout{
		blockBytes: 1024 << word(0x18), firstBlock: word(0x14), blocksPerGroup: word(0x20), blocks: word(0x4),
	}
	features := word(0x60)
	groupBytes = 32
	if features&feature64Bit != 0 {
		layout.blocks |= word(0x150) << 32
		groupBytes = uint64(binary.LittleEndian.Uint16(superblock[0xfe:]))
	}
	groups = (layout.blocks - layout.firstBlock + layout.blocksPerGroup - 1) / layout.blocksPerGroup
	if features&featureMetaGroups != 0 || groupBytes < 32 || groupBytes > 1024 || groups > groupsMax {
		groups = 0
	}
	return layout, groups, groupBytes, nil
}

// usedParts are the ranges of groups in which a block was ever allocated, none longer than one step.
func (l blockLayout) usedParts() []part {
	groupBytes := l.blocksPerGroup * l.blockBytes
	groupsPerStep := int(trimStepBytes / groupBytes)
	if groupsPerStep == 0 {
		groupsPerStep = 1
	}
	groups := len(l.isUnused)
	if l.isUnused == nil {
		groups = int((l.blocks + l.blocksPerGroup - 1) / l.blocksPerGroup)
	}
	var parts []part
	for group := 0; group < groups; {
		first := group
		for group < groups && group-first < groupsPerStep && (l.isUnused == nil || !l.isUnused[group]) {
			group++
		}
		if group == first {
			group++
			continue
		}
		start := l.firstBlock*l.blockBytes + uint64(first)*groupBytes
		parts = append(parts, part{start, uint64(group-first) * groupBytes})
	}
	return parts
}
