// Files that have no name until they are complete, and names that are replaced atomically. Readers see either the
// old file or the complete new one, and an earlier failure leaves nothing behind. A nameless file leaves nothing
// even if the machine dies.

package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"syscall"
)

// namelessFile is a file being written, in the directory where it will get its name.
type namelessFile struct {
	fd        int
	folder    int
	temporary string // of a file that has a name after all
}

func makeNameless(folder int) (namelessFile, error) {
	f := namelessFile{folder: folder}
	var err error
	f.fd, err = openAt(folder, ".", flagTemporary|syscall.O_WRONLY, 0o600)
	if err == syscall.EOPNOTSUPP || err == syscall.EISDIR || err == syscall.EINVAL {
		return makeTemporary(folder)
	}
	return f, err
}

// makeTemporary makes a file with a hidden temporary name. It costs less than a nameless file, but stays if the
// machine dies.
func makeTemporary(folder int) (namelessFile, error) {
	f := namelessFile{folder: folder, temporary: temporaryName()}
	var err error
	f.fd, err = openAt(folder, f.temporary, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o600)
	return f, err
}

// give names the file and replaces an existing file of that name. Owner and mode are set before that.
func (f *namelessFile) give(name string) error {
	if f.temporary == "" {
		content := fmt.Sprintf("/proc/self/fd/%d", f.fd)
		return putAt(f.folder, name, func(name string) error {
			return linkAt(atWorkingFolder, content, f.folder, name, atFollow)
		})
	}
	err := syscall.Renameat(f.folder, f.temporary, f.folder, name)
	if err == nil {
		f.temporary = ""
	}
	return err
}

// drop closes the file. A file without a name is deleted by that.
func (f *namelessFile) drop() {
	if f.temporary != "" {
		_ = removeAt(f.folder, f.temporary, 0)
	}
	syscall.Close(f.fd)
}

// putAt makes a name in a directory. It atomically replaces an existing file, but not a directory.
func putAt(folder int, name string, make func(name string) error) error {
	err := make(name)
	if err != syscall.EEXIST {
		return err
	}
	temporary := temporaryName()
	if err = make(temporary); err == nil {
		err = syscall.Renameat(folder, temporary, folder, name)
	}
	// The temporary name remains after a failure, and if both are names of one file.
	_ = removeAt(folder, temporary, 0)
	return err
}

const temporaryPrefix = ".lohar-"

func temporaryName() string {
	var random [8]byte
	_, _ = rand.Read(random[:])
	return temporaryPrefix + hex.EncodeToString(random[:])
}
