// Merges layers in memory, after the OCI specification. A layer's whiteouts are applied first, to the state below it,
// and then its entries in their order: so the order of whiteouts among the entries does not matter.
//
// A directory on the way to an entry may be a symbolic link. It is followed within the tree, which has no outside.

package main

import (
	"sort"
	"strings"
)

type kind byte

const (
	aFile    kind = 'f'
	aFolder  kind = 'd'
	aSymlink kind = 'l'
	aChar    kind = 'c'
	aBlock   kind = 'b'
	aPipe    kind = 'p'
	aLink    kind = 'h' // a further name of another entry; only in layers
)

const (
	nameBytesMax = 255
	pathBytesMax = 4095
	// linksMax is ext4's limit on the names of a file.
	linksMax = 65000
	// hopsMax is the kernel's limit on links in one path.
	hopsMax = 40

	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	// Names with it were notes of AUFS to itself.
	notePrefix = ".wh..wh."
)

// An inode is an entry without its names.
type inode struct {
	kind         kind
	mode         uint32 // permissions, and the bits set-user-id, set-group-id and sticky
	uid, gid     uint32
	seconds      int64 // when it was modified
	nanoseconds  uint32
	attributes   map[string]string
	target       string // of a symbolic link
	major, minor uint32
	content      content
	// links is the number of names.
	links int
	// number is its place in the disk's table, and unplaced the number of names that the tree lacks; see place.go.
	number   uint32
	unplaced int
}

// A node is a name in a directory.
type node struct {
	*inode
	parent    *node
	children  map[string]*node // of a directory
	depth     int
	pathBytes int
}

// An entry of a layer.
type entry struct {
	path   []string // of the whole name; empty: the root
	inode  inode
	linkTo []string // of another name
}

type tree struct {
	root   *node
	limits limits
	// entries counts what was added, and removed is told about contents that no name leads to any more.
	entries int
	removed func(content)
}

func newTree(limits limits, removed func(content)) *tree {
	root := &node{inode: &inode{kind: aFolder, mode: 0o755, links: 1}, children: map[string]*node{}}
	root.parent = root
	return &tree{root: root, limits: limits, removed: removed}
}

// merge adds a layer.
func (t *tree) merge(entries []entry) error {
	for index := range entries {
		if err := t.whiteOut(entries[index].path); err != nil {
			return err
		}
	}
	var early []*entry
	for index := range entries {
		one := &entries[index]
		if isWhiteout(one.path) {
			t.removed(one.inode.content)
			continue
		}
		isEarly, err := t.add(one)
		if err != nil {
			return err
		}
		if isEarly {
			early = append(early, one)
		}
	}
	// Links that came before their target, which may be such a link too.
	for len(early) > 0 {
		var left []*entry
		for _, one := range early {
			isEarly, err := t.add(one)
			if err != nil {
				return err
			}
			if isEarly {
				left = append(left, one)
			}
		}
		if len(left) == len(early) {
			return refuse("missing_target", "%q is a link to %q, which is missing", joined(left[0].path),
				joined(left[0].linkTo))
		}
		early = left
	}
	return nil
}

func isWhiteout(path []string) bool {
	return len(path) > 0 && strings.HasPrefix(path[len(path)-1], whiteoutPrefix)
}

func (t *tree) whiteOut(path []string) error {
	for index, part := range path {
		if index < len(path)-1 && strings.HasPrefix(part, whiteoutPrefix) {
			return refuse("bad_whiteout", "%q is below a whiteout", joined(path))
		}
	}
	if !isWhiteout(path) {
		return nil
	}
	name := strings.TrimPrefix(path[len(path)-1], whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return refuse("bad_whiteout", "%q is a whiteout of no name", joined(path))
	}
	folder, err := t.folder(path[:len(path)-1], false)
	if err != nil || folder == nil {
		return err
	}
	switch last := path[len(path)-1]; {
	case last == opaqueName:
		for name := range folder.children {
			t.remove(folder, name)
		}
	case !strings.HasPrefix(last, notePrefix):
		t.remove(folder, name)
	}
	return nil
}

// add reports true for a link whose target is missing so far.
func (t *tree) add(one *entry) (isEarly bool, err error) {
	if len(one.path) == 0 {
		if one.inode.kind != aFolder {
			return false, refuse("bad_root", "the root is not a directory in a layer")
		}
		t.root.describe(one.inode)
		return false, nil
	}
	folder, err := t.folder(one.path[:len(one.path)-1], true)
	if err != nil {
		return false, err
	}
	name := one.path[len(one.path)-1]
	there := folder.children[name]
	if one.inode.kind == aLink {
		return t.link(folder, name, one)
	}
	if one.inode.kind == aFolder && there != nil && there.kind == aFolder {
		there.describe(one.inode)
		return false, nil
	}
	t.remove(folder, name)
	added := one.inode
	return false, t.put(folder, name, &added)
}

// describe gives a directory what an entry says about it.
func (n *node) describe(said inode) {
	n.mode, n.uid, n.gid = said.mode, said.uid, said.gid
	n.seconds, n.nanoseconds, n.attributes = said.seconds, said.nanoseconds, said.attributes
}

func (t *tree) link(folder *node, name string, one *entry) (isEarly bool, err error) {
	if len(one.linkTo) == 0 {
		return false, refuse("bad_link", "%q is a hard link to the root", joined(one.path))
	}
	from, err := t.folder(one.linkTo[:len(one.linkTo)-1], false)
	if err != nil {
		return false, err
	}
	if from == nil {
		return true, nil
	}
	target := from.children[one.linkTo[len(one.linkTo)-1]]
	switch {
	case target == nil:
		return true, nil
	case target.kind == aFolder:
		return false, refuse("bad_link", "%q is a hard link to a directory", joined(one.path))
	case folder.children[name] != nil && folder.children[name].inode == target.inode:
		return false, nil
	case target.links >= linksMax:
		return false, refuse("too_many_entries", "%q has more than %d names", joined(one.linkTo), linksMax)
	}
	// It keeps its content if the name that is replaced is its last one.
	shared := target.inode
	shared.links++
	t.remove(folder, name)
	shared.links--
	return false, t.put(folder, name, shared)
}

func (t *tree) put(folder *node, name string, what *inode) error {
	added := &node{
		inode: what, parent: folder, depth: folder.depth + 1, pathBytes: folder.pathBytes + 1 + len(name),
	}
	t.entries++
	switch {
	case t.entries > t.limits.Entries:
		return refuse("too_many_entries", "the image has more than %d files", t.limits.Entries)
	case added.depth > t.limits.Depth:
		return refuse("too_deep", "%.200q... is more than %d directories deep", added.path(), t.limits.Depth)
	case added.pathBytes > pathBytesMax:
		return refuse("name_too_long", "the path %.200q... is longer than %d bytes", added.path(), pathBytesMax)
	}
	if what.kind == aFolder {
		added.children = map[string]*node{}
	}
	what.links++
	folder.children[name] = added
	return nil
}

func (t *tree) remove(folder *node, name string) {
	gone := folder.children[name]
	if gone == nil {
		return
	}
	delete(folder.children, name)
	for child := range gone.children {
		t.remove(gone, child)
	}
	if gone.links--; gone.links == 0 {
		t.removed(gone.content)
	}
}

// folder returns the directory with that path. If it is missing, it is made, or nil is returned.
func (t *tree) folder(path []string, isMade bool) (*node, error) {
	return t.folderFrom(t.root, path, isMade)
}

func (t *tree) folderFrom(at *node, path []string, isMade bool) (*node, error) {
	hops := 0
	for len(path) > 0 {
		name := path[0]
		path = path[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = at.parent
			continue
		}
		next := at.children[name]
		switch {
		case next == nil && !isMade:
			return nil, nil
		case next == nil:
			if len(name) > nameBytesMax {
				return nil, refuse("name_too_long", "a link leads to a name longer than %d bytes", nameBytesMax)
			}
			if err := t.put(at, name, &inode{kind: aFolder, mode: 0o755}); err != nil {
				return nil, err
			}
			at = at.children[name]
		case next.kind == aFolder:
			at = next
		case next.kind == aSymlink:
			if hops++; hops > hopsMax {
				return nil, refuse("bad_path", "the path through %q has too many links", next.path())
			}
			if strings.HasPrefix(next.target, "/") {
				at = t.root
			}
			path = append(strings.Split(next.target, "/"), path...)
		case !isMade:
			return nil, nil
		default:
			return nil, refuse("bad_path", "%q is no directory, but other entries are below it", next.path())
		}
	}
	return at, nil
}

// file returns what the target of a link in a directory names, without following a link at its end; nil if it is
// missing.
func (t *tree) file(at *node, target string) *node {
	parts := strings.Split(target, "/")
	if strings.HasPrefix(target, "/") {
		at = t.root
	}
	folder, err := t.folderFrom(at, parts[:len(parts)-1], false)
	if err != nil || folder == nil {
		return nil
	}
	return folder.children[parts[len(parts)-1]]
}

// names are in the order of bytes, so that nothing depends on the order of a map.
func (n *node) names() []string {
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// path is for messages.
func (n *node) path() string {
	if n.parent == n {
		return ""
	}
	for name, sibling := range n.parent.children {
		if sibling == n {
			return n.parent.path() + "/" + name
		}
	}
	return n.parent.path() + "/..."
}

func joined(path []string) string { return strings.Join(path, "/") }

// hasLargeFolder reports whether a directory is large enough for an index.
func (t *tree) hasLargeFolder() bool { return t.root.isLarge() }

func (n *node) isLarge() bool {
	bytes := 0
	for name, child := range n.children {
		// A directory's entry: a number, lengths, the name, in units of four bytes.
		if bytes += (8 + len(name) + 3) &^ 3; bytes > indexFromBytes || child.isLarge() {
			return true
		}
	}
	return false
}
