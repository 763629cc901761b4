// The packer: a file or directory as a tar stream for the host.
//
// Files that vanish meanwhile are ignored; other files that cannot be packed are left out and reported. Memory use
// does not grow with the archive.

package main

import (
	"archive/tar"
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
			stream: s, raw: output, output: tar.NewWriter(output), isSparse: request.Sparse, names: readAccountNames(),
			packed: map[fileID]string{}, buffer: make([]byte, copyBytes), isWanted: wantedAttributes(request.Exact),
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
	stream   *stream
	output   *tar.Writer
	raw      io.Writer // below output
	isWanted func(attribute string) bool
	// isSparse packs holes as such.
	isSparse bool
	names    accountNames
	packed   map[fileID]string // the first name of each file that has several
	buffer   []byte
	past     readPast
	result   wire.Archived
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
	header.PAXRecords = packAttributes(fd, header.PAXRecords, p.isWanted)
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
	p.past = newReadPast(fd, about.Size, p.result.Bytes)
	defer p.past.drop()
	// Checked before the header is sent, while an unreadable file can still be left out.
	var first [1]byte
	if _, err := syscall.Pread(fd, first[:], 0); err != nil {
		return p.leaveOut(header.Name, err)
	}
	if p.isSparse {
		if extents, hasHoles := dataExtents(fd, &about); hasHoles {
			p.remember(header.Name, &about)
			return p.addSparse(fd, header, extents)
		}
	}
	if err := p.writeFile(header, &about); err != nil {
		return err
	}
	return p.copy(fd, header.Name, about.Size, p.output)
}

// writeFile writes a file's header and records the file, so that later hard links can refer to it.
func (p *packer) writeFile(header *tar.Header, about *syscall.Stat_t) error {
	p.remember(header.Name, about)
	p.result.Bytes += header.Size
	return p.write(header)
}

func (p *packer) remember(name string, about *syscall.Stat_t) {
	if about.Nlink > 1 && len(p.packed) < hardLinksMax {
		p.packed[fileID{about.Dev, about.Ino}] = name
	}
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
func (p *packer) copy(fd int, name string, size int64, output io.Writer) error {
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
			p.past.took(n)
			if n == 0 {
				isShort = true
				p.shortened = name
				for i := range p.buffer {
					p.buffer[i] = 0
				}
				continue
			}
		}
		if _, err := output.Write(chunk[:n]); err != nil {
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
	header.PAXRecords = packAttributes(fd, nil, p.isWanted)
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
