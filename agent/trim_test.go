// Tests of the groups that a trim reports: those that were used, by ext4's own tables.

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
)

func TestATrimLeavesOutWhatWasNeverUsed(t *testing.T) {
	const groupBytes = 128 << 20
	layout := blockLayout{blockBytes: 4096, blocksPerGroup: 32768, blocks: 32768 * 20}
	layout.isUnused = make([]bool, 20)
	for _, group := range []int{3, 4, 19} {
		layout.isUnused[group] = true
	}
	want := []part{{0, 3 * groupBytes}, {5 * groupBytes, 8 * groupBytes}, {13 * groupBytes, 6 * groupBytes}}
	if got := layout.usedParts(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	layout.isUnused = nil // Nothing is known, so all of it is told.
	want = []part{{0, 8 * groupBytes}, {8 * groupBytes, 8 * groupBytes}, {16 * groupBytes, 4 * groupBytes}}
	if got := layout.usedParts(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestTheGroupsOfAFilesystemAreReadFromIt(t *testing.T) {
	program, err := exec.LookPath("mke2fs")
	if err != nil {
		t.Skip("mke2fs is not on the PATH")
	}
	for _, features := range []string{"64bit,^meta_bg", "^64bit,^meta_bg,^metadata_csum,uninit_bg"} {
		path := filepath.Join(t.TempDir(), "disk")
		made, err := theReaper.start(program, []string{program, "-q", "-t", "ext4", "-O", features, path, "4G"}, &syscall.ProcAttr{
			Files: []uintptr{0, 1, 2},
		})
		if err != nil {
			t.Fatal(err)
		}
		if <-made.exited; made.status != 0 {
			t.Fatalf("mke2fs ended with %v", made.status)
		}
		layout, err := readLayout(path)
		if err != nil {
			t.Fatal(err)
		}
		unused := 0
		for _, isUnused := range layout.isUnused {
			if isUnused {
				unused++
			}
		}
		if len(layout.isUnused) != 32 || layout.isUnused[0] || unused < 16 {
			t.Errorf("%s: %v", features, layout.isUnused)
		}
	}
}

func TestWhatIsNoTableOfGroupsIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readLayout(path); err == nil {
		t.Error("a disk of zeros is no filesystem")
	}
	superblock := make([]byte, 1024)
	superblock[0x38], superblock[0x39] = 0x53, 0xef
	superblock[0x18], superblock[0x21] = 2, 0x80 // 4 KiB, 32768 blocks a group
	superblock[0x7] = 1                          // 16777216 blocks
	if _, groups, _, err := parseSuperblock(superblock); err != nil || groups != 512 {
		t.Errorf("%d %v", groups, err)
	}
	superblock[0x60] = 0x10
	if _, groups, _, err := parseSuperblock(superblock); err != nil || groups != 0 {
		t.Errorf("%d %v", groups, err)
	}
}
