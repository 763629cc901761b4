// Directories as tar streams, in either direction.
//
// Unpacked files stay below their directory: the kernel's own confined lookup opens every parent, names that are
// links are never followed, and an existing file is replaced rather than written through. So neither an archive nor
// a program that moves links meanwhile leads outside. A truncated archive leaves alone the files it did not reach.
// Memory use does not grow with the archive.

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

// hardLinksMax limits the names remembered for later hard links to the same file. Beyond it contents are repeated.
const hardLinksMax = 65536

func (a *agent) archiveRead(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.ArchiveRead) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		path = filepath.Clean(path)
		parent, err := syscall.Open(filepath.Dir(path), flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		defer syscall.Close(parent)
		name := filepath.Base(path)
		if name == "/" {
			name = "."
		}
		var about syscall.Stat_t
		if err := statAt(parent, name, &about); err != nil {
			return nil, fileError(request.Path, err)
		}
		out := a.newOutgoing(s, request.Shared)
		defer out.drop()
		output := &streamWriter{out: out}
		p := packer{
			stream: s, output: tar.NewWriter(output), names: readAccountNames(),
			packed: map[fileID]string{}, buffer: make([]byte, copyBytes),
			takesKernelFiles: isOnKernelFilesystem(parent, name),
		}
		if err := p.add(parent, name, name); err != nil {
			return nil, fileError(request.Path, err)
		}
		if p.top == nil && p.refusal != nil {
			return nil, fileError(request.Path, p.refusal)
		}
		err = p.tellLeftOut()
		if err == nil {
			err = p.output.Close()
		}
		if err == nil {
			err = output.flush()
		}
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		if p.shortened != "" {
			return nil, becameShorter(p.shortened)
		}
		return p.result, nil
	})
}

// copyBytes is the buffer size for copying a file's content.
const copyBytes = 131072

type fileID struct{ device, inode uint64 }

type packer struct {
	stream *stream
	output *tar.Writer
	names  accountNames
	packed map[fileID]string // the first name of each file that has several
	buffer []byte
	result wire.Archived
	// shortened is the last file that could not be read completely; "" if there is none.
	shortened string
	// takesKernelFiles is set if the requested path is on a kernel filesystem, which is left out elsewhere.
	takesKernelFiles bool
	top              *tar.Header // the requested directory, once it is packed
	leftOut          wire.LeftOut
	refusal          error // why the last file was left out
}

// add packs one name of a directory and everything below it. Files that vanish meanwhile are ignored; other files
// that cannot be packed are left out and reported at the end.
func (p *packer) add(folder int, name, packedName string) error {
	var about syscall.Stat_t
	if err := statAt(folder, name, &about); err != nil {
		return p.leaveOut(packedName, err)
	}
	header := &tar.Header{
		Name: packedName, Mode: int64(about.Mode & 0o7777), ModTime: time.Unix(about.Mtim.Sec, 0),
		Uid: int(about.Uid), Gid: int(about.Gid),
		Uname: nameOf(p.names.users, about.Uid), Gname: nameOf(p.names.groups, about.Gid),
	}
	switch about.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return p.addFile(folder, name, header)
	case syscall.S_IFDIR:
		return p.addDirectory(folder, name, header)
	case syscall.S_IFLNK:
		target, err := readLinkAt(folder, name)
		if err != nil {
			return p.leaveOut(packedName, err)
		}
		header.Typeflag, header.Linkname = tar.TypeSymlink, target
		return p.write(header)
	}
	return p.leaveOut(packedName, errNoFile)
}

var (
	errNoFile      = errors.New("it is not a file, directory or link") // Used only here.
	errKernelFiles = errors.New("these are the kernel's own files, which are copied only when they are asked for")
	errEndless     = errors.New("its size is unknown and more than 4 MB")
)

// leaveOut records a file that is not packed. The archive still succeeds: the rest is worth having.
func (p *packer) leaveOut(packedName string, err error) error {
	if err == syscall.ENOENT || err == syscall.ESRCH {
		return nil
	}
	p.refusal = err
	p.leftOut.Count++
	if len(p.leftOut.Names) < wire.LeftOutNamesMax {
		p.leftOut.Names = append(p.leftOut.Names, wire.LeftOutName{Name: strings.ToValidUTF8(packedName, "\uFFFD"), Reason: err.Error()})
	}
	return nil
}

// tellLeftOut packs the top directory a second time, with a comment that lists what is missing below it: only the
// archive itself reaches the unpacker, and programs that ignore the comment make a directory that exists.
func (p *packer) tellLeftOut() error {
	if p.leftOut.Count == 0 || p.top == nil {
		return nil
	}
	again := *p.top
	again.PAXRecords = map[string]string{"comment": string(wire.Encode(p.leftOut))}
	return p.write(&again)
}

func (p *packer) write(header *tar.Header) error {
	if p.stream.isCancelled() {
		return errGivenUp
	}
	p.result.Entries++
	return p.output.WriteHeader(header)
}

func (p *packer) addFile(folder int, name string, header *tar.Header) error {
	fd, err := openAt(folder, name, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return p.leaveOut(header.Name, err)
	}
	defer syscall.Close(fd)
	var about syscall.Stat_t
	if err := syscall.Fstat(fd, &about); err != nil {
		return p.leaveOut(header.Name, err)
	}
	if about.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return p.leaveOut(header.Name, errNoFile)
	}
	if about.Nlink > 1 {
		if first, isPacked := p.packed[fileID{about.Dev, about.Ino}]; isPacked {
			header.Typeflag, header.Linkname = tar.TypeLink, first
			return p.write(header)
		}
	}
	header.Typeflag, header.Size = tar.TypeReg, about.Size
	if about.Size == 0 || p.takesKernelFiles && isKernelFilesystem(fd) {
		content, err := p.readUnmeasured(fd)
		if err != nil {
			return p.leaveOut(header.Name, err)
		}
		header.Size = int64(len(content))
		if err := p.writeFile(header, &about); err != nil {
			return err
		}
		_, err = p.output.Write(content)
		return err
	}
	// Checked before the header is sent, while an unreadable file can still be left out.
	var first [1]byte
	if _, err := syscall.Pread(fd, first[:], 0); err != nil {
		return p.leaveOut(header.Name, err)
	}
	if err := p.writeFile(header, &about); err != nil {
		return err
	}
	return p.copy(fd, header.Name, about.Size)
}

// writeFile writes a file's header and records the file, so that later hard links can refer to it.
func (p *packer) writeFile(header *tar.Header, about *syscall.Stat_t) error {
	if about.Nlink > 1 && len(p.packed) < hardLinksMax {
		p.packed[fileID{about.Dev, about.Ino}] = header.Name
	}
	p.result.Bytes += header.Size
	return p.write(header)
}

// unmeasuredBytesMax limits the bytes read from a file of unknown size.
const unmeasuredBytesMax = 4 << 20

// readUnmeasured reads a file whose size is not what the kernel says: many of the kernel's own files report a size
// of 0 or of a page. Most files that come here are simply empty.
func (p *packer) readUnmeasured(fd int) ([]byte, error) {
	var content []byte
	for {
		n, err := syscall.Read(fd, p.buffer)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return nil, err
		case n == 0:
			return content, nil
		case len(content)+n > unmeasuredBytesMax:
			return nil, errEndless
		default:
			content = append(content, p.buffer[:n]...)
		}
	}
}

// copy packs exactly the size in the header: a file that grows is cut; a file that shrinks is padded with zeros and
// reported at the end.
func (p *packer) copy(fd int, name string, size int64) error {
	isShort := false
	for left := size; left > 0; {
		chunk := p.buffer
		if int64(len(chunk)) > left {
			chunk = chunk[:left]
		}
		n := len(chunk)
		if !isShort {
			var err error
			n, err = syscall.Read(fd, chunk)
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			if n == 0 {
				isShort = true
				p.shortened = name
				for i := range p.buffer {
					p.buffer[i] = 0
				}
				continue
			}
		}
		if _, err := p.output.Write(chunk[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

func (p *packer) addDirectory(folder int, name string, header *tar.Header) error {
	fd, err := openAt(folder, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return p.leaveOut(header.Name, err)
	}
	directory := os.NewFile(uintptr(fd), name)
	defer directory.Close()
	prefix := header.Name + "/"
	header.Typeflag, header.Name = tar.TypeDir, prefix
	if p.top == nil {
		p.top = header
	}
	if err := p.write(header); err != nil {
		return err
	}
	if !p.takesKernelFiles && isKernelFilesystem(fd) {
		return p.leaveOut(prefix, errKernelFiles)
	}
	for {
		names, err := directory.Readdirnames(256)
		for _, child := range names {
			if err := p.add(fd, child, prefix+child); err != nil {
				return err
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			var errno syscall.Errno
			if errors.As(err, &errno) {
				return p.leaveOut(prefix, errno)
			}
			return err
		}
	}
}

func isOnKernelFilesystem(folder int, name string) bool {
	fd, err := openAt(folder, name, flagPath, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	return isKernelFilesystem(fd)
}

// isKernelFilesystem reports whether a filesystem holds no user's files and reports meaningless sizes.
func isKernelFilesystem(fd int) bool {
	var about syscall.Statfs_t
	if syscall.Fstatfs(fd, &about) != nil {
		return false
	}
	switch about.Type {
	case 0x9fa0, 0x62656572, 0x1cd1, 0x63677270, 0x64626720, 0x74726163: // proc, sys, devpts, cgroup2, debug, trace
		return true
	}
	return false
}

// streamWriter buffers writes into full data frames.
type streamWriter struct {
	out    *outgoing
	room   []byte
	filled int
}

func (w *streamWriter) Write(bytes []byte) (int, error) {
	written := len(bytes)
	for len(bytes) > 0 {
		if w.room == nil {
			if w.room = w.out.room(wire.WindowBytes); w.room == nil {
				return 0, errGivenUp
			}
		}
		n := copy(w.room[w.filled:], bytes)
		w.filled += n
		bytes = bytes[n:]
		if w.filled == len(w.room) {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (w *streamWriter) flush() error {
	if w.room == nil {
		return nil
	}
	filled := w.filled
	w.room, w.filled = nil, 0
	if w.out.send(filled) != nil {
		return errGivenUp
	}
	return nil
}

func (a *agent) archiveWrite(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.ArchiveWrite) (any, error) {
		path, err := absolutePath(request.Path)
		if err != nil {
			return nil, err
		}
		u := unpacker{stream: s, owner: ownerOr(request.Owner), parent: -1}
		if err := makeParents(filepath.Join(path, "x"), u.owner); err != nil {
			return nil, fileError(request.Path, err)
		}
		u.root, err = syscall.Open(path, flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fileError(request.Path, err)
		}
		defer syscall.Close(u.root)
		defer u.leaveParent()
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
	buffer []byte
	result wire.Archived

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

func splitName(name string) (folder, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

func (u *unpacker) add(header *tar.Header, content io.Reader) error {
	name, err := cleanName(header.Name)
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
		if err := u.owner.keep(syscall.Fchown(fd, int(u.owner.uid), int(u.owner.gid))); err != nil {
			return err
		}
	}
	return syscall.Fchmod(fd, mode)
}

func (u *unpacker) addSymlink(folder int, name string, header *tar.Header) error {
	return putAt(folder, name, func(name string) error {
		err := symlinkAt(header.Linkname, folder, name)
		if err == nil {
			err = u.owner.keep(ownAt(folder, name, u.owner))
		}
		return err
	})
}

// addLink adds a hard link to a file of the same archive.
func (u *unpacker) addLink(folder int, name string, header *tar.Header) error {
	target, err := cleanName(header.Linkname)
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
	if err := u.owner.keep(syscall.Fchown(file.fd, int(u.owner.uid), int(u.owner.gid))); err != nil {
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
			u.result.Bytes += int64(n)
		}
		if err == io.EOF {
			return syscall.Ftruncate(fd, size)
		}
		if err != nil {
			return archiveError(err)
		}
	}
}

// holeBytes is the smallest run of zeros worth skipping.
const holeBytes = 4096

var zeros [copyBytes]byte

func writeAt(fd int, content []byte, offset int64) error {
	if len(content) >= holeBytes && bytes.Equal(content, zeros[:len(content)]) {
		return nil
	}
	for len(content) > 0 {
		n, err := syscall.Pwrite(fd, content, offset)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		content, offset = content[n:], offset+int64(n)
	}
	return nil
}
