// The unpacker: a tar stream of the host as files below a directory.
//
// Unpacked files stay below their directory: the kernel's own confined lookup opens every parent, names that are
// links are never followed, and an existing file is replaced rather than written through. So neither an archive nor
// a program that moves links meanwhile leads outside. A truncated archive leaves alone the files it did not reach.

package main

import (
	"archive/tar"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"syscall"

	"bhatti/agent/wire"
)

func (a *agent) archiveWrite(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.ArchiveWrite) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		u := unpacker{
			stream: s, owner: ownerOr(request.Owner), parent: -1, isExact: request.Exact, newRoot: request.Root,
			isWanted: wantedAttributes(request.Exact),
		}
		if err := makeParents(filepath.Join(path, "x"), u.owner); err != nil {
			return nil, fileError(request.Path, err)
		}
		u.root, err = syscall.Open(path, flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		defer syscall.Close(u.root)
		defer u.leaveParent()
		defer u.past.flush()
		if err := u.unpack(&streamReader{stream: s}); err != nil {
			return nil, err
		}
		return u.result, nil
	})
}

// streamReader reads the host's data. An end that the host did not send is an error.
type streamReader struct {
	stream *stream
	rest   []byte
	taken  int
}

func (r *streamReader) Read(buffer []byte) (int, error) {
	if len(r.rest) == 0 {
		r.stream.giveBack(r.taken)
		r.rest = r.stream.takeInput()
		r.taken = len(r.rest)
		if r.rest == nil {
			if r.stream.hasWholeInput() {
				return 0, io.EOF
			}
			return 0, errGivenUp
		}
	}
	n := copy(buffer, r.rest)
	r.rest = r.rest[n:]
	if !r.stream.isIntact() {
		return 0, errGivenUp
	}
	return n, nil
}

type unpacker struct {
	stream *stream
	owner  account
	root   int
	// isExact gives entries the owners that the archive names.
	isExact  bool
	isWanted func(attribute string) bool
	// newRoot replaces the first part of each name; nil: it stays.
	newRoot *string
	buffer  []byte
	result  wire.Archived
	past    writtenPast

	// The directory of the last entry: the next entry is usually in the same one.
	parent     int // -1: none
	parentPath string
}

func (u *unpacker) unpack(input io.Reader) error {
	u.buffer = make([]byte, copyBytes)
	archive := tar.NewReader(input)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := u.add(header, archive); err == syscall.EISDIR {
			return wire.Errorf(wire.Conflict, "%q is a directory here and none in the archive", header.Name)
		} else if err != nil {
			return fileError(header.Name, err)
		}
	}
	// The archive is followed by padding.
	for {
		if _, err := input.Read(u.buffer); err == io.EOF {
			return nil
		} else if err != nil {
			return archiveError(err)
		}
	}
}

func archiveError(err error) error {
	var coded *wire.Error
	if errors.As(err, &coded) {
		return coded
	}
	return wire.Errorf(wire.Invalid, "the archive cannot be read: %v", err)
}

// cleanName returns a name without empty and "." parts; "" is the directory itself.
func cleanName(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", wire.Errorf(wire.Invalid, "the archive holds the absolute name %q", name)
	}
	parts := strings.Split(name, "/")
	kept := parts[:0]
	for _, part := range parts {
		switch part {
		case "", ".":
		case "..":
			return "", wire.Errorf(wire.Invalid, "the archive holds the name %q, which leads outside", name)
		default:
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "/"), nil
}

// placeOf returns the name that an entry of the archive gets here.
func (u *unpacker) placeOf(name string) (string, error) {
	name, err := cleanName(name)
	if err != nil || u.newRoot == nil || name == "" {
		return name, err
	}
	rest := ""
	if i := strings.IndexByte(name, '/'); i >= 0 {
		rest = name[i:]
	}
	return cleanName(strings.TrimPrefix(*u.newRoot+rest, "/"))
}

func (u *unpacker) ownerOf(header *tar.Header) account {
	if u.isExact {
		return account{uid: uint32(header.Uid), gid: uint32(header.Gid)}
	}
	return u.owner
}

func splitName(name string) (folder, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

func (u *unpacker) add(header *tar.Header, content io.Reader) error {
	name, err := u.placeOf(header.Name)
	if err != nil {
		return err
	}
	if name == "" {
		return nil
	}
	folderPath, base := splitName(name)
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default:
		return nil // Skips devices, pipes and records about the archive.
	}
	folder, err := u.enter(folderPath)
	if err != nil {
		return err
	}
	u.result.Entries++
	switch header.Typeflag {
	case tar.TypeDir:
		return u.addDirectory(folder, base, header)
	case tar.TypeSymlink:
		return u.addSymlink(folder, base, header)
	case tar.TypeLink:
		return u.addLink(folder, base, header)
	}
	return u.addFile(folder, base, header, content)
}

// enter opens a directory below the root and creates its missing parts. The descriptor is valid until the next
// call.
func (u *unpacker) enter(path string) (int, error) {
	if path == "" {
		return u.root, nil
	}
	if u.parent >= 0 && u.parentPath == path {
		return u.parent, nil
	}
	fd, err := openBeneath(u.root, path, flagPath|syscall.O_DIRECTORY)
	if err == syscall.ENOENT {
		fd, err = u.makePath(path)
	}
	if err == syscall.EXDEV {
		return -1, wire.Errorf(wire.Invalid, "%q leads outside through a link", path)
	}
	if err != nil {
		return -1, err
	}
	u.leaveParent()
	u.parent, u.parentPath = fd, path
	return fd, nil
}

func (u *unpacker) leaveParent() {
	if u.parent >= 0 {
		syscall.Close(u.parent)
		u.parent = -1
	}
}

// makePath creates the missing directories of a path. It descends in steps, since an archive may nest directories
// without limit.
func (u *unpacker) makePath(path string) (int, error) {
	folder, err := openBeneath(u.root, ".", flagPath|syscall.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	done := ""
	for _, part := range strings.Split(path, "/") {
		done = strings.TrimPrefix(done+"/"+part, "/")
		next, err := openBeneath(u.root, done, flagPath|syscall.O_DIRECTORY)
		if err == syscall.ENOENT {
			if err = mkdirAt(folder, part, 0o755); err == nil {
				err = u.owner.keep(ownAt(folder, part, u.owner))
			}
			if err == nil || err == syscall.EEXIST {
				next, err = openBeneath(u.root, done, flagPath|syscall.O_DIRECTORY)
			}
		}
		syscall.Close(folder)
		if err != nil {
			return -1, err
		}
		folder = next
	}
	return folder, nil
}

func (u *unpacker) addDirectory(folder int, name string, header *tar.Header) error {
	mode := uint32(header.Mode) & 0o7777
	err := mkdirAt(folder, name, 0o700)
	isNew := err == nil
	if err == syscall.EEXIST {
		var about syscall.Stat_t
		if err = statAt(folder, name, &about); err == nil && about.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			if err = removeAt(folder, name, 0); err == nil {
				err = mkdirAt(folder, name, 0o700)
				isNew = true
			}
		}
	}
	if err != nil {
		return err
	}
	fd, err := openAt(folder, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if isNew {
		owner := u.ownerOf(header)
		if err := owner.keep(syscall.Fchown(fd, int(owner.uid), int(owner.gid))); err != nil {
			return err
		}
	}
	if err := unpackAttributes(fd, header.PAXRecords, u.isWanted); err != nil {
		return err
	}
	return syscall.Fchmod(fd, mode)
}

func (u *unpacker) addSymlink(folder int, name string, header *tar.Header) error {
	return putAt(folder, name, func(name string) error {
		err := symlinkAt(header.Linkname, folder, name)
		if err == nil {
			owner := u.ownerOf(header)
			err = owner.keep(ownAt(folder, name, owner))
		}
		return err
	})
}

// addLink adds a hard link to a file of the same archive.
func (u *unpacker) addLink(folder int, name string, header *tar.Header) error {
	target, err := u.placeOf(header.Linkname)
	if err != nil {
		return err
	}
	if target == "" {
		return wire.Errorf(wire.Invalid, "the archive links %q to a missing file", header.Name)
	}
	targetFolder, targetName := splitName(target)
	if targetFolder == "" {
		targetFolder = "."
	}
	from, err := openBeneath(u.root, targetFolder, flagPath|syscall.O_DIRECTORY)
	if err == syscall.EXDEV {
		return wire.Errorf(wire.Invalid, "%q leads outside through a link", header.Linkname)
	}
	if err != nil {
		return err
	}
	defer syscall.Close(from)
	return putAt(folder, name, func(name string) error { return linkAt(from, targetName, folder, name, 0) })
}

// smallFileBytes is the size up to which creating a file dominates its cost: archives have thousands of small
// files.
const smallFileBytes = copyBytes

func (u *unpacker) addFile(folder int, name string, header *tar.Header, content io.Reader) error {
	var about syscall.Stat_t
	if statAt(folder, name, &about) == nil && about.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return syscall.EISDIR // Truncated archive.
	}
	begin := makeNameless
	if header.Size <= smallFileBytes {
		begin = makeTemporary
	}
	file, err := begin(folder)
	if err != nil {
		return err
	}
	defer file.drop()
	if err := u.fill(file.fd, content); err != nil {
		return err
	}
	owner := u.ownerOf(header)
	if err := owner.keep(syscall.Fchown(file.fd, int(owner.uid), int(owner.gid))); err != nil {
		return err
	}
	if err := unpackAttributes(file.fd, header.PAXRecords, u.isWanted); err != nil {
		return err
	}
	if err := syscall.Fchmod(file.fd, uint32(header.Mode)&0o7777); err != nil {
		return err
	}
	modified := syscall.NsecToTimeval(header.ModTime.UnixNano())
	_ = syscall.Futimes(file.fd, []syscall.Timeval{modified, modified})
	return file.give(name)
}

// fill writes a file's content. It skips blocks of zeros, so that a sparse file stays sparse: its archive may be
// tiny and the file larger than the disk.
func (u *unpacker) fill(fd int, content io.Reader) error {
	size := int64(0)
	u.past.begin()
	for {
		// Writes the hole without reading the stream.
		if u.stream.isCancelled() {
			return errGivenUp
		}
		n, err := content.Read(u.buffer)
		if n > 0 {
			if err := writeAt(fd, u.buffer[:n], size); err != nil {
				return err
			}
			size += int64(n)
			u.past.wrote(fd, size)
			u.result.Bytes += int64(n)
		}
		if err == io.EOF {
			err := syscall.Ftruncate(fd, size)
			u.past.finish(fd, size)
			return err
		}
		if err != nil {
			return archiveError(err)
		}
	}
}
