// The user that commands run as, created in images that lack it.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	userHome     = "/home/lohar"
	userIDFirst  = 1000
	sudoersRule  = "lohar ALL=(ALL:ALL) NOPASSWD: ALL\n"
	sudoersFile  = "etc/sudoers.d/lohar"
	skeletonPath = "etc/skel"
)

// makeUser adds the user with its group, home and sudo rule below root, unless they exist.
func makeUser(root string) error {
	etc := filepath.Join(root, "etc")
	passwd, err := readOptional(filepath.Join(etc, "passwd"))
	if err != nil {
		return err
	}
	if _, isThere := parseAccount(passwd, userDefault); !isThere {
		if err := addUser(root, etc, passwd); err != nil {
			return err
		}
	}
	rule := filepath.Join(root, sudoersFile)
	if _, err := os.Lstat(rule); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(rule), 0o750); err != nil {
		return err
	}
	return makeFile(rule, []byte(sudoersRule), 0o440)
}

// addUser takes the id 1000, or the next free one: a duplicate id would make it an alias of another user.
func addUser(root, etc, passwd string) error {
	group, err := readOptional(filepath.Join(etc, "group"))
	if err != nil {
		return err
	}
	id := freeID(passwd, group)
	shell := "/bin/sh"
	if _, err := os.Stat(filepath.Join(root, "bin/bash")); err == nil {
		shell = "/bin/bash"
	}
	lines := []struct {
		file, line string
		mode       os.FileMode
		isOptional bool
	}{
		{"group", fmt.Sprintf("lohar:x:%d:", id), 0o644, false},
		{"gshadow", "lohar:!::", 0o640, true},
		{"shadow", "lohar:*:19700:0:99999:7:::", 0o640, true},
		{"passwd", fmt.Sprintf("lohar:x:%d:%d:lohar:%s:%s", id, id, userHome, shell), 0o644, false},
	}
	for _, l := range lines {
		err := appendLine(filepath.Join(etc, l.file), l.line, l.mode)
		if err != nil && !(l.isOptional && errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return makeHome(root, id)
}

// freeID finds a number that neither a user nor a group has.
func freeID(files ...string) int {
	isTaken := map[string]bool{}
	for _, file := range files {
		for _, line := range strings.Split(file, "\n") {
			if fields := strings.Split(line, ":"); len(fields) > 2 {
				isTaken[fields[2]] = true
			}
		}
	}
	id := userIDFirst
	for isTaken[strconv.Itoa(id)] {
		id++
	}
	return id
}

// appendLine adds a line to a file, keeping its mode and owner. It leaves an existing name alone.
func appendLine(path, line string, mode os.FileMode) error {
	about, err := os.Stat(path)
	if err != nil && (!errors.Is(err, os.ErrNotExist) || mode != 0o644) {
		return err
	}
	content, err := readOptional(path)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(line, ":")
	if strings.HasPrefix(content, name+":") || strings.Contains(content, "\n"+name+":") {
		return nil
	}
	if content != "" && !strings.HasSuffix(content, "\n") {
		content += "\n"
	}
	if about != nil {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		_, err = file.WriteString(content + line + "\n")
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		return err
	}
	return makeFile(path, []byte(content+line+"\n"), mode)
}

// makeHome makes the home directory with the skeleton's files.
func makeHome(root string, id int) error {
	home := filepath.Join(root, userHome)
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(home, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	skeleton := filepath.Join(root, skeletonPath)
	entries, err := os.ReadDir(skeleton)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if entry.Type() != 0 {
			continue
		}
		content, err := os.ReadFile(filepath.Join(skeleton, entry.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(home, entry.Name()), content, 0o644); err != nil {
			return err
		}
	}
	return filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, id, id)
	})
}

// makeTmp creates /tmp, which every command may write to. An image that has one keeps its mode.
func makeTmp(root string) error {
	temporary := filepath.Join(root, "tmp")
	if isDirectory(temporary) {
		return nil
	}
	if err := ensureDirectory(temporary); err != nil {
		return err
	}
	return os.Chmod(temporary, os.ModeSticky|0o777)
}

// makeWorkspace creates the initial working directory.
func makeWorkspace(root string) error {
	folder := filepath.Join(root, workspace)
	if err := os.Mkdir(folder, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	owner, err := findAccount(filepath.Join(root, "etc"), userDefault)
	if err != nil {
		return err
	}
	return os.Chown(folder, int(owner.uid), int(owner.gid))
}

func readOptional(path string) (string, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(content), err
}
