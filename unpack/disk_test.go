// Sizes and identities of disks.

package main

import "testing"

func TestADiskHasRoomForItsContentsAndTheirInodes(t *testing.T) {
	const gib = 1 << 30
	for _, one := range []struct {
		stored       int64
		entries      int
		bytes, inode int64
	}{
		{0, 1, 8 * gib, 8 * gib / inodeRatio},
		{5 * gib, 10_000, 8 * gib, 8 * gib / inodeRatio},
		{100 * gib, 10_000, 130 * gib, 130 * gib / inodeRatio},
		// Many small files need more inodes than a disk of that size has usually.
		{1 * gib, 900_000, 8 * gib, 1_801_024},
	} {
		bytes, inodes := sizeOf(one.stored, one.entries)
		if bytes < one.bytes || bytes > one.bytes+gib/2 || inodes < one.inode || inodes > one.inode+gib/2/inodeRatio {
			t.Errorf("%d bytes in %d entries: a disk of %d bytes and %d inodes", one.stored, one.entries, bytes, inodes)
		}
		if bytes%diskBytesUnit != 0 {
			t.Errorf("%d is no whole number of MiB", bytes)
		}
	}
}

func TestIdentitiesFollowFromTheDigestAndDiffer(t *testing.T) {
	const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	if first := uuidOf(digest, 0); first != "01234567-89ab-4def-8123-456789abcde0" {
		t.Error(first)
	}
	if uuidOf(digest, 0) == uuidOf(digest, 1) {
		t.Error("the hash seed is the identity of the file system")
	}
}
