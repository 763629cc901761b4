// Makes the disk of the tree, with e2fsprogs. The same tree and identity give the same bytes: every time, identifier
// and feature is fixed, and mke2fs takes names in the order of bytes.

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	diskBytesMin  = 8 << 30
	diskBytesUnit = 1 << 20
	journalBytes  = 32 << 20
	// inodeRatio is mke2fs's own: one inode for so many bytes of the disk.
	inodeRatio = 16384
	inodeBytes = 256
	// clock is what the disk says about when it was made.
	clock = 1
	// An index pays in directories with more blocks of names than that.
	indexFromBytes = 2 * blockBytes
)

// features are those that every kernel and e2fsprogs of the last years know, whatever a host's mke2fs.conf says.
const features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super," +
	"large_file,huge_file,dir_nlink,extra_isize,metadata_csum"

var toolEnvironment = []string{
	"LC_ALL=C", "PATH=/tools", "MKE2FS_CONFIG=/tools/none", "E2FSCK_CONFIG=/tools/none",
	fmt.Sprintf("SOURCE_DATE_EPOCH=%d", clock), fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", clock),
	fmt.Sprintf("E2FSCK_TIME=%d", clock),
}

func toolPath(name string) string { return filepath.Join("/tools", name) }

type disk struct {
	file  string // of the disk
	tree  string // directory
	notes string // a directory for this work
	table []*inode
	id    string
}

// sizeOf returns the disk's size for these contents, and the number of its inodes.
func sizeOf(stored int64, entries int) (bytes, inodes int64) {
	inodes = int64(entries)*2 + 1024
	bytes = int64(float64(stored+int64(entries)*blockBytes)*1.3) + journalBytes + inodes*inodeBytes
	if bytes < diskBytesMin {
		bytes = diskBytesMin
	}
	bytes = (bytes + diskBytesUnit - 1) / diskBytesUnit * diskBytesUnit
	if usual := bytes / inodeRatio; inodes < usual {
		inodes = usual
	}
	return bytes, inodes
}

func (d *disk) make(bytes, inodes int64, isLarge bool) error {
	file, err := os.OpenFile(d.file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(bytes); err != nil {
		return err
	}
	// Inode tables count as zeroed, being holes. A journal of this size holds what growing the disk writes in one
	// transaction, and no more, since every sandbox's overlay stores it.
	_, err = runTool(nil, 0, "mke2fs", "-q", "-F", "-t", "ext4", "-b", strconv.Itoa(blockBytes), "-I", strconv.Itoa(inodeBytes),
		"-O", features, "-m", "0", "-J", fmt.Sprintf("size=%d", journalBytes>>20), "-L", "bhatti",
		"-N", strconv.FormatInt(inodes, 10), "-U", uuidOf(d.id, 0),
		"-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,hash_seed="+uuidOf(d.id, 1), "-d", d.tree, d.file)
	if err != nil {
		return err
	}
	patched, err := describeInodes(file, d.table)
	if err != nil {
		return err
	}
	if err := d.addAttributes(patched.inodes); err != nil {
		return err
	}
	if patched.hasOthers || isLarge {
		// It corrects the kinds that directories say, which are those of the tree, and makes indexes.
		if _, err := runTool(nil, 1, "e2fsck", "-f", "-y", "-D", d.file); err != nil {
			return err
		}
	}
	return fixClock(file)
}

// addAttributes writes extended attributes, by the numbers of inodes.
func (d *disk) addAttributes(inodes map[uint32]uint32) error {
	var script bytes.Buffer
	count := 0
	for index, one := range d.table {
		for _, name := range sortedNames(one.attributes) {
			count++
			value := filepath.Join(d.notes, strconv.Itoa(count))
			if err := os.WriteFile(value, []byte(one.attributes[name]), 0o600); err != nil {
				return spaceError(err)
			}
			fmt.Fprintf(&script, "ea_set -f %s <%d> \"%s\"\n", value, inodes[uint32(index+firstNumber)],
				strings.ReplaceAll(name, `"`, `""`))
		}
	}
	if count == 0 {
		return nil
	}
	path := filepath.Join(d.notes, "script")
	if err := os.WriteFile(path, script.Bytes(), 0o600); err != nil {
		return err
	}
	words, err := runTool(nil, 0, "debugfs", "-w", "-f", path, d.file)
	if err != nil {
		return err
	}
	// It says its version, and what failed, but ends as if nothing had.
	if lines := strings.SplitN(strings.TrimSpace(words), "\n", 2); len(lines) > 1 {
		return refuse("bad_attribute", "an extended attribute cannot be kept: %.200s", lines[1])
	}
	return nil
}

// runTool returns what a program has written to standard error. Exit codes up to the given one are successes.
func runTool(input *os.File, codeMax int, name string, arguments ...string) (string, error) {
	command := exec.Command(toolPath(name), arguments...)
	nothing, err := os.Open("/tools/none")
	if err != nil {
		return "", err
	}
	defer nothing.Close()
	var words tail
	command.Env, command.Stdin, command.Stderr = toolEnvironment, nothing, &words
	if input != nil {
		command.Stdin = input
	}
	// The standard output of some is only talk.
	command.Stdout = &tail{}
	err = command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() <= codeMax {
		err = nil
	}
	if err != nil {
		if strings.Contains(words.String(), syscall.ENOSPC.Error()) {
			return "", spaceError(syscall.ENOSPC)
		}
		return "", fmt.Errorf("%s: %w: %.500s", name, err, words.String())
	}
	return words.String(), nil
}

// A tail keeps the beginning of what is written to it.
type tail struct{ bytes.Buffer }

const tailBytes = 8192

func (t *tail) Write(data []byte) (int, error) {
	if room := tailBytes - t.Len(); room > 0 {
		if room > len(data) {
			room = len(data)
		}
		t.Buffer.Write(data[:room])
	}
	return len(data), nil
}

// uuidOf makes identifiers of at least 32 hexadecimal digits, with the bits of a random one.
func uuidOf(id string, which byte) string {
	digits := []byte(id[:32])
	digits[12], digits[16] = '4', '8'
	digits[31] = "0123456789abcdef"[which]
	return fmt.Sprintf("%s-%s-%s-%s-%s", digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
}
