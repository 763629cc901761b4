// The root disk: growing its filesystem while it is mounted.

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	rootDevice   = "/dev/vda"
	ioctlResize  = 0x40086610 // EXT4_IOC_RESIZE_FS
	ioctlDisk    = 0x80081272 // BLKGETSIZE64
	growDeadline = 2 * time.Second
)

// growDisk makes the root filesystem as large as its device. The host enlarges the device before it asks, but the
// kernel may not yet have handled the interrupt that reports it.
func growDisk(isWanted bool) error {
	if !isWanted {
		return nil
	}
	for end := time.Now().Add(growDeadline); ; time.Sleep(time.Millisecond) {
		blocks, blockBytes, err := filesystemSize()
		if err != nil {
			return err
		}
		deviceBytes, err := deviceSize()
		if err != nil {
			return err
		}
		wanted := deviceBytes / blockBytes
		if wanted > blocks {
			return resizeTo(wanted)
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// filesystemSize reads ext4's superblock: statfs omits the filesystem's own overhead.
func filesystemSize() (blocks, blockBytes uint64, err error) {
	file, err := os.Open(rootDevice)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	var superblock [1024]byte
	if _, err := file.ReadAt(superblock[:], 1024); err != nil {
		return 0, 0, fmt.Errorf("read the superblock: %w", err)
	}
	const magic = 0xef53
	if binary.LittleEndian.Uint16(superblock[0x38:]) != magic {
		return 0, 0, fmt.Errorf("%s is not an ext4 filesystem", rootDevice)
	}
	low, high := binary.LittleEndian.Uint32(superblock[0x4:]), binary.LittleEndian.Uint32(superblock[0x150:])
	return uint64(high)<<32 | uint64(low), 1024 << binary.LittleEndian.Uint32(superblock[0x18:]), nil
}

func deviceSize() (uint64, error) {
	device, err := syscall.Open(rootDevice, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer syscall.Close(device)
	var bytes uint64
	err = ioctl(device, ioctlDisk, unsafe.Pointer(&bytes))
	return bytes, os.NewSyscallError("size of "+rootDevice, err)
}

func resizeTo(blocks uint64) error {
	root, err := syscall.Open("/", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(root)
	return os.NewSyscallError("resize the root filesystem", ioctl(root, ioctlResize, unsafe.Pointer(&blocks)))
}
