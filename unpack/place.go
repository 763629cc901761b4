// Makes the merged tree in an empty directory, top down: only directories that were just made are entered, and no
// link is ever followed. Each entry's time of last access is its number in a table, which mke2fs copies into the
// disk; so every inode of the disk can be found again, whatever its names are.

package main

import (
	"strconv"
	"syscall"
)

// firstNumber is the number of the root; a file whose mark was lost has another time.
const firstNumber = 1

type placer struct {
	contents *contents
	// table has the inode with number N at N - firstNumber.
	table []*inode
}

func (p *placer) number(one *inode) {
	if one.number == 0 {
		p.table = append(p.table, one)
		one.number = uint32(len(p.table) - 1 + firstNumber)
		one.unplaced = one.links
	}
}

// place makes everything below a directory, in the order of names.
func (p *placer) place(folder int, at *node) error {
	p.number(at.inode)
	for _, name := range at.names() {
		child := at.children[name]
		p.number(child.inode)
		if child.kind != aFolder {
			if err := p.placeFile(folder, name, child.inode); err != nil {
				return spaceError(err)
			}
			continue
		}
		if err := p.placeFolder(folder, name, child); err != nil {
			return spaceError(err)
		}
	}
	return nil
}

func (p *placer) placeFolder(folder int, name string, child *node) error {
	if err := mkdirAt(folder, name); err != nil {
		return err
	}
	fd, err := openAt(folder, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := p.place(fd, child); err != nil {
		return err
	}
	return markAt(folder, name, int64(child.number))
}

// placeFile gives a file one more of its names. A file of several names is made among the contents first, and its
// last name is where it is moved to.
func (p *placer) placeFile(folder int, name string, one *inode) error {
	store, stored := p.contents.folder, "file-"+strconv.Itoa(int(one.number))
	if one.content.number != 0 {
		stored = strconv.FormatInt(one.content.number, 10)
	}
	isFirst := one.unplaced == one.links
	one.unplaced--
	if one.links == 1 && one.content.number == 0 {
		store, stored = folder, name
	}
	if isFirst {
		if err := makeFile(store, stored, one); err != nil {
			return err
		}
		if err := markAt(store, stored, int64(one.number)); err != nil {
			return err
		}
	}
	switch {
	case store == folder:
		return nil
	case one.unplaced > 0:
		return linkAt(store, stored, folder, name)
	}
	return renameAt(store, stored, folder, name)
}

// makeFile makes what is no content yet. Devices are pipes in the tree: making a device is a right. A symbolic link
// with several names is a file, since mke2fs would copy it once for each name.
func makeFile(folder int, name string, one *inode) error {
	text := ""
	switch {
	case one.kind == aSymlink && one.links == 1:
		return symlinkAt(one.target, folder, name)
	case one.kind == aSymlink && len(one.target) > shortTargetBytesMax:
		text = one.target
	case one.kind == aChar || one.kind == aBlock || one.kind == aPipe:
		return makePipeAt(folder, name)
	case one.content.number != 0:
		return nil
	}
	fd, err := openAt(folder, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	_, err = writeData(fd, []byte(text), 0)
	return err
}
