// Reads a blob to its end: its size, its digest and that of the archive in it are checked, and how much comes out of
// it.

package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"os/exec"
)

const (
	progressBytes = 1 << 20
	// A bomb is recognised once a layer is larger than that.
	ratioFromBytes = 1 << 30
	aheadBuffers   = 8
)

// A source counts and hashes what is read of it.
type source struct {
	from  io.Reader
	sum   hash.Hash
	bytes int64
	check func(bytes int64) error
}

func newSource(from io.Reader, check func(int64) error) *source {
	return &source{from: from, sum: sha256.New(), check: check}
}

func (s *source) Read(buffer []byte) (int, error) {
	n, err := s.from.Read(buffer)
	s.sum.Write(buffer[:n])
	s.bytes += int64(n)
	if refused := s.check(s.bytes); refused != nil {
		return 0, refused
	}
	return n, err
}

func (s *source) digest() string { return hex.EncodeToString(s.sum.Sum(nil)) }

// An unpacked layer: the archive's bytes, and the checks once they have been read.
type unpacking struct {
	about      layer
	compressed *source
	archive    *source
}

// totals are over all layers.
type totals struct {
	limits   limits
	unpacked int64
}

// openLayer reads a blob as its layer says.
func openLayer(file io.Reader, index int, about layer, all *totals) (*unpacking, error) {
	told := int64(0)
	compressed := newSource(file, func(bytes int64) error {
		if bytes > about.Size && about.Digest == "" {
			return refuse("too_many_bytes", "the archive has more than %d bytes", about.Size)
		}
		if bytes > about.Size {
			return refuse("wrong_size", "the blob %s is longer than its %d bytes", about.Digest, about.Size)
		}
		if bytes-told >= progressBytes || bytes == about.Size && told < bytes {
			told = bytes
			tell(message{Type: "progress", Layer: index, Bytes: bytes})
		}
		return nil
	})
	plain, err := decompress(compressed, about.Compression)
	if err != nil {
		return nil, err
	}
	before := int64(0)
	archive := newSource(readAhead(plain), func(bytes int64) error {
		all.unpacked += bytes - before
		before = bytes
		if all.unpacked > all.limits.UnpackedBytes {
			return refuse("too_many_bytes", "the image has more than %d bytes", all.limits.UnpackedBytes)
		}
		if bytes > ratioFromBytes && about.Size > 0 && bytes/about.Size > all.limits.Ratio {
			return refuse("too_compressed", "a layer unpacks to more than %d times its size", all.limits.Ratio)
		}
		return nil
	})
	return &unpacking{about, compressed, archive}, nil
}

// finish is called when the archive has been read to its end, or could not be: another digest explains any failure.
func (u *unpacking) finish(failed error) error {
	if failed != nil {
		if isBound(failed) {
			return failed
		}
		// To its end, or until it cannot be decompressed: then nobody else reads the blob any more.
		if _, err := io.Copy(io.Discard, u.archive); isBound(err) {
			return failed
		}
	}
	if _, err := io.Copy(io.Discard, u.compressed); err != nil {
		return err
	}
	if u.compressed.bytes != u.about.Size {
		return refuse("wrong_size", "the blob %s has %d bytes and should have %d", u.about.Digest, u.compressed.bytes,
			u.about.Size)
	}
	if u.compressed.digest() != u.about.Digest {
		return refuse("wrong_digest", "the blob %s has another digest", u.about.Digest)
	}
	if failed != nil {
		return failed
	}
	if u.archive.digest() != u.about.DiffID {
		return refuse("wrong_diff_id", "the layer %s holds another archive than its configuration says", u.about.Digest)
	}
	return nil
}

// isBound reports that a limit is reached, so that no more may be read.
func isBound(err error) bool {
	var refused *refusal
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.reason {
	case "too_many_bytes", "too_compressed", "too_many_entries", "no_space", "wrong_size":
		return true
	}
	return false
}

func decompress(from io.Reader, compression string) (io.Reader, error) {
	switch compression {
	case "gzip":
		reader, err := gzip.NewReader(bufio.NewReaderSize(from, copyBytes))
		if err != nil {
			return nil, compressionError(err)
		}
		return &gunzip{reader}, nil
	case "zstd":
		return unzstd(from)
	}
	return from, nil
}

type gunzip struct{ from io.Reader }

func (g *gunzip) Read(buffer []byte) (int, error) {
	n, err := g.from.Read(buffer)
	return n, compressionError(err)
}

func compressionError(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case err == nil || err == io.EOF:
		return err
	case err == io.ErrUnexpectedEOF:
		return refuse("truncated", "the compressed data ends too early")
	case errors.As(err, &corrupt), errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return refuse("bad_compression", "the compressed data is damaged: %v", err)
	}
	return err
}

// unzstd reads through Debian's program, since Go has no such package.
func unzstd(from io.Reader) (io.Reader, error) {
	command := exec.Command(toolPath("zstd"), "--decompress", "--stdout", "--quiet", "--no-progress", "-M128MB")
	command.Env = toolEnvironment
	var words bytes.Buffer
	command.Stdin, command.Stderr = from, &words
	output, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("the program zstd is not installed")
	}
	if err != nil {
		return nil, err
	}
	return &zstdOutput{command: command, output: output, words: &words}, nil
}

type zstdOutput struct {
	command *exec.Cmd
	output  io.Reader
	words   *bytes.Buffer
	isEnded bool
}

func (z *zstdOutput) Read(buffer []byte) (int, error) {
	if z.isEnded {
		return 0, io.EOF
	}
	n, err := z.output.Read(buffer)
	if err != io.EOF {
		return n, err
	}
	z.isEnded = true
	err = z.command.Wait()
	var refused *refusal
	var exit *exec.ExitError
	switch {
	case errors.As(err, &refused): // Of the blob, whose bytes it is given.
		return n, err
	case errors.As(err, &exit):
		return n, refuse("bad_compression", "the compressed data is damaged: %.200s", z.words.String())
	case err != nil && !errors.Is(err, os.ErrClosed):
		return n, err
	}
	return n, io.EOF
}

// readAhead reads in the background, so that decompression and writing use a processor each.
func readAhead(from io.Reader) io.Reader {
	ahead := &aheadReader{chunks: make(chan chunk, aheadBuffers), free: make(chan []byte, aheadBuffers)}
	for index := 0; index < aheadBuffers; index++ {
		ahead.free <- make([]byte, copyBytes)
	}
	go func() {
		for buffer := range ahead.free {
			n, err := io.ReadFull(from, buffer)
			if err == io.ErrUnexpectedEOF {
				err = io.EOF // Only the buffer is not full.
			}
			ahead.chunks <- chunk{buffer, n, err}
			if err != nil {
				return
			}
		}
	}()
	return ahead
}

type chunk struct {
	buffer []byte
	length int
	err    error
}

type aheadReader struct {
	chunks chan chunk
	free   chan []byte
	now    chunk
	at     int
	isOver bool
}

func (a *aheadReader) Read(buffer []byte) (int, error) {
	for a.at == a.now.length {
		if a.isOver {
			return 0, a.now.err
		}
		if a.now.buffer != nil {
			a.free <- a.now.buffer
		}
		a.now, a.at = <-a.chunks, 0
		a.isOver = a.now.err != nil
	}
	n := copy(buffer, a.now.buffer[a.at:a.now.length])
	a.at += n
	return n, nil
}
