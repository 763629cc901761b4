// Renames in a watched tree: the kernel reports the old name and the new one as two events with the same cookie.
//
// It holds both directories meanwhile, so any other change of names in the first directory shows that the file has
// left the tree. With several processors events of other directories may come between the two.

package main

import (
	"path"
	"syscall"

	"bhatti/agent/wire"
)

// movesMax limits renames whose second event is waited for: far more than processors can have begun at once.
const movesMax = 64

type moveFrom struct {
	cookie      uint32
	directory   *watched
	name        string
	isDirectory bool
}

type movesInProgress struct {
	open []moveFrom
	// last is the rename that was reported last, by its old and its new path.
	lastFrom, lastTo string
}

func (m *movesInProgress) add(move moveFrom) { m.open = append(m.open, move) }

func (m *movesInProgress) take(cookie uint32) (moveFrom, bool) {
	for i, move := range m.open {
		if move.cookie == cookie {
			m.open = append(m.open[:i:i], m.open[i+1:]...)
			return move, true
		}
	}
	return moveFrom{}, false
}

// settleMovesFrom reports files that have left the tree from a directory.
func (t *watchTree) settleMovesFrom(directory *watched) {
	open := t.moves.open
	t.moves.open = nil
	for _, move := range open {
		switch {
		case move.directory.isGone:
		case move.directory == directory:
			t.vanish(directory, move.name, move.isDirectory)
		default:
			t.moves.add(move)
		}
	}
}

func (t *watchTree) settleMoves() {
	for len(t.moves.open) > 0 {
		t.settleMovesFrom(t.moves.open[0].directory)
	}
}

// vanish reports a name that is gone.
func (t *watchTree) vanish(directory *watched, name string, isDirectory bool) {
	t.forget(directory.children[name])
	t.report(wire.FileRemoved, t.pathOf(directory, name), isDirectory)
}

// arrive handles the second event of a rename, or a file that comes from outside.
func (t *watchTree) arrive(directory *watched, name string, cookie uint32, isDirectory, isListed bool) error {
	move, isFromHere := t.moves.take(cookie)
	t.settleMovesFrom(directory)
	if !isFromHere || move.directory.isGone {
		return t.appear(directory, name, isDirectory, isListed)
	}
	from, to := t.pathOf(move.directory, move.name), t.pathOf(directory, name)
	isBack := t.moves.lastFrom == to && t.moves.lastTo == from
	t.moves.lastFrom, t.moves.lastTo = from, to
	moved, there := move.directory.children[move.name], directory.children[name]
	switch {
	case isBack && t.isStillThere(move):
		// The two names were exchanged: this is the second half, and the first has replaced what was there.
		return t.appear(directory, name, isDirectory, false)
	case isOurTemporary(from):
		return t.appear(directory, name, isDirectory, isListed)
	case !isDirectory || !t.isRecursive:
		t.forget(there)
		t.rename(from, to, isDirectory)
		return nil
	case moved == nil:
		// It was renamed before it could be watched, or a listing has found it here.
		t.report(wire.FileRemoved, from, true)
		return t.appear(directory, name, true, isListed)
	case directory.isBelow(moved):
		t.isStale = true
		return nil
	}
	t.forget(there)
	t.rename(from, to, true)
	delete(move.directory.children, move.name)
	moved.name, moved.parent = name, directory
	directory.put(moved)
	if t.isAt(moved) {
		return nil
	}
	t.forget(moved)
	t.report(wire.FileRemoved, to, true)
	return t.appear(directory, name, true, false)
}

func (t *watchTree) rename(from, to string, isDirectory bool) {
	t.tell(wire.FileEvent{Type: wire.FileRenamed, Path: from, To: to, IsDirectory: isDirectory})
}

// isStillThere reports whether the old name of a rename has what the tree has there: then two names were exchanged. A
// directory there that is another one was made since.
func (t *watchTree) isStillThere(move moveFrom) bool {
	folder, err := t.openKnown(move.directory)
	if err != nil {
		return false
	}
	defer syscall.Close(folder)
	var about syscall.Stat_t
	if statAt(folder, move.name, &about) != nil {
		return false
	}
	there := move.directory.children[move.name]
	return there == nil || there.inode == fileID{about.Dev, about.Ino}
}

// isAt reports whether a directory has its path now, or nothing has: then later events will tell.
func (t *watchTree) isAt(directory *watched) bool {
	fd, id, err := t.openIn(directory.parent, directory.name)
	if err != nil {
		_ = t.without(directory.parent, t.pathOf(directory, ""), err)
		return true
	}
	syscall.Close(fd)
	return id == directory.id
}

// isNameless reports whether the name in an event is that of a file that has none, such as #123.
func (t *watchTree) isNameless(directory *watched, name string) bool {
	if name[0] != '#' {
		return false
	}
	folder, err := t.openKnown(directory)
	if err != nil {
		return false
	}
	defer syscall.Close(folder)
	var about syscall.Stat_t
	return statAt(folder, name, &about) == syscall.ENOENT
}

// forget ends the watches of a directory and of everything below it.
func (t *watchTree) forget(directory *watched) {
	if directory == nil || directory.isGone {
		return
	}
	if directory.parent != nil && directory.parent.children[directory.name] == directory {
		delete(directory.parent.children, directory.name)
	}
	for open := []*watched{directory}; len(open) > 0; {
		last := open[len(open)-1]
		open = open[:len(open)-1]
		for _, child := range last.children {
			open = append(open, child)
		}
		last.isGone, last.children, last.listed = true, nil, nil
		if t.byID[last.id] == last {
			delete(t.byID, last.id)
			_, _ = syscall.InotifyRmWatch(t.inotify, uint32(last.id))
		}
	}
}

// pathOf is the path of a name in a directory, of the directory itself without a name.
func (t *watchTree) pathOf(directory *watched, name string) string {
	place := name
	for ; directory.parent != nil; directory = directory.parent {
		place = path.Join(directory.name, place)
	}
	if place == "" {
		return "."
	}
	return place
}

func (d *watched) isBelow(other *watched) bool {
	for ; d != nil; d = d.parent {
		if d == other {
			return true
		}
	}
	return false
}

// isOurTemporary reports whether the last part of a path is a name that this agent gives to a file until it is whole.
func isOurTemporary(place string) bool {
	name := path.Base(place)
	return len(name) == len(temporaryPrefix)+16 && name[:len(temporaryPrefix)] == temporaryPrefix
}

// rootCause is the kernel's error in one of the library's.
func rootCause(err error) error {
	if inner, isWrapped := err.(interface{ Unwrap() error }); isWrapped {
		return rootCause(inner.Unwrap())
	}
	return err
}
