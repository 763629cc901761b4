// Small files of /etc that the agent keeps.

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// keepFile makes a small file hold content. It leaves an equal file alone and overwrites a different one in place:
// truncating or renaming would make ext4 flush it immediately, in the middle of a restore. It replaces anything but
// a regular file, for example a link into a service that does not run here.
func keepFile(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return makeFile(path, content, 0o644)
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if !about.Mode().IsRegular() {
		return makeFile(path, content, 0o644)
	}
	current, err := io.ReadAll(io.LimitReader(file, int64(len(content))+1))
	if err == nil && bytes.Equal(current, content) {
		return nil
	}
	if _, err := file.WriteAt(content, 0); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if about.Size() > int64(len(content)) {
		if err := file.Truncate(int64(len(content))); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}

// makeFile replaces whatever is there with a complete file.
func makeFile(path string, content []byte, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".lohar-*")
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	defer os.Remove(file.Name())
	_, err = file.Write(content)
	if err == nil {
		err = file.Chmod(mode)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}
