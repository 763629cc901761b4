// Package wire holds the bytes and messages between host and guest.
//
// frame.go and message.go are twins of src/guest/frame.ts and src/guest/message.ts; protocol/PROTOCOL.md is
// normative for both and protocol/vectors.json tests both. This package imports nothing of the agent.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// Generation is the highest generation of the protocol that this agent speaks.
const Generation = 3

// ProcessGeneration is the first with processes.
const ProcessGeneration = 3

// Limits of the protocol, in bytes unless the name says otherwise.
const (
	PreambleBytes = 28
	NonceBytes    = 16
	HeaderBytes   = 12
	DataBytesMax  = 32768
	DataAtBytes   = 9
	SharedPiece   = 65536
	JSONBytesMax  = 262144
	FrameBytesMax = HeaderBytes + JSONBytesMax
	WindowBytes   = 262144
	StreamsMax    = 256
)

// Type is the type of a frame.
type Type byte

// The frame types. DataAt belongs to generation 2.
const (
	Open    Type = 1
	Data    Type = 2
	Window  Type = 3
	End     Type = 4
	Message Type = 5
	Close   Type = 6
	DataAt  Type = 7
)

// The channels of a stream.
const (
	Stdin  byte = 0
	Stdout byte = 1
	Stderr byte = 2
)

// ErrBroken means that the bytes are not a frame: the connection is over, and the reader must search for a
// preamble.
var ErrBroken = errors.New("the bytes are no frame")

var (
	hostMagic  = []byte("\xb4BHATTI\n")
	guestMagic = []byte("\xb4LOHAR\r\n")
)

// Preamble begins a connection.
type Preamble struct {
	Nonce      [NonceBytes]byte
	Generation uint16
}

// AppendGuestPreamble appends the guest's answer to a host preamble.
func AppendGuestPreamble(buffer []byte, preamble Preamble) []byte {
	buffer = append(buffer, guestMagic...)
	buffer = append(buffer, preamble.Nonce[:]...)
	buffer = append(buffer, byte(preamble.Generation>>8), byte(preamble.Generation), 0, 0)
	return buffer
}

// parseHostPreamble reads a candidate that begins with the magic. It recognises a preamble cut short by a new one
// by its last bytes or by the magic inside it.
func parseHostPreamble(candidate []byte) (Preamble, bool) {
	preamble := Preamble{Generation: binary.BigEndian.Uint16(candidate[24:])}
	copy(preamble.Nonce[:], candidate[8:24])
	isWhole := candidate[26] == 0 && candidate[27] == 0 && preamble.Generation > 0
	return preamble, isWhole && !bytes.Contains(candidate[1:PreambleBytes], hostMagic)
}

// Header is the fixed part of a frame.
type Header struct {
	Type   Type
	Stream uint32
	Length uint32
}

// PutHeader writes the header into the first HeaderBytes of buffer.
func PutHeader(buffer []byte, header Header) {
	buffer[0], buffer[1], buffer[2], buffer[3] = byte(header.Type), 'b', 'h', 't'
	binary.BigEndian.PutUint32(buffer[4:], header.Stream)
	binary.BigEndian.PutUint32(buffer[8:], header.Length)
}

// ParseHeader reads the header from the first HeaderBytes of buffer.
func ParseHeader(buffer []byte) (Header, error) {
	header := Header{
		Type:   Type(buffer[0]),
		Stream: binary.BigEndian.Uint32(buffer[4:]),
		Length: binary.BigEndian.Uint32(buffer[8:]),
	}
	if buffer[1] != 'b' || buffer[2] != 'h' || buffer[3] != 't' || header.Stream == 0 {
		return Header{}, ErrBroken
	}
	lengthMin, lengthMax := uint32(0), uint32(JSONBytesMax)
	switch header.Type {
	case Open, Message, Close:
	case Data:
		lengthMin, lengthMax = 2, DataBytesMax+1
	case DataAt:
		lengthMin, lengthMax = DataAtBytes, DataAtBytes
	case Window:
		lengthMin, lengthMax = 4, 4
	case End:
		lengthMin, lengthMax = 1, 1
	default:
		return Header{}, ErrBroken
	}
	if header.Length < lengthMin || header.Length > lengthMax {
		return Header{}, ErrBroken
	}
	return header, nil
}

// Frame is one frame. Its payload belongs to the Reader and is valid until the next call.
type Frame struct {
	Type    Type
	Stream  uint32
	Payload []byte
}

// AppendFrame appends the bytes of a frame.
func AppendFrame(buffer []byte, frame Frame) []byte {
	start := len(buffer)
	buffer = append(buffer, make([]byte, HeaderBytes)...)
	PutHeader(buffer[start:], Header{Type: frame.Type, Stream: frame.Stream, Length: uint32(len(frame.Payload))})
	return append(buffer, frame.Payload...)
}

// Place is the position of a DataAt frame's bytes in the shared memory.
type Place struct {
	Channel        byte
	Offset, Length int
}

// AppendDataAt appends a DataAt frame.
func AppendDataAt(buffer []byte, stream uint32, place Place) []byte {
	var payload [DataAtBytes]byte
	payload[0] = place.Channel
	binary.BigEndian.PutUint32(payload[1:], uint32(place.Offset))
	binary.BigEndian.PutUint32(payload[5:], uint32(place.Length))
	return AppendFrame(buffer, Frame{Type: DataAt, Stream: stream, Payload: payload[:]})
}

// ParseDataAt reads the payload of a DataAt frame.
func ParseDataAt(payload []byte) (Place, error) {
	place := Place{
		Channel: payload[0],
		Offset:  int(binary.BigEndian.Uint32(payload[1:])),
		Length:  int(binary.BigEndian.Uint32(payload[5:])),
	}
	if place.Length == 0 || place.Length > SharedPiece {
		return Place{}, ErrBroken
	}
	return place, nil
}

// Reader finds preambles and frames in the bytes from the host. It holds at most one largest frame.
type Reader struct {
	source     io.Reader
	buffer     []byte
	start, end int
}

const readerBytesFirst = 65536

// NewReader reads from source.
func NewReader(source io.Reader) *Reader {
	return &Reader{source: source, buffer: make([]byte, readerBytesFirst)}
}

// Reset drops unread bytes. After a lost peer they must not be mixed with the next one's.
func (r *Reader) Reset() { r.start, r.end = 0, 0 }

// Preamble drops bytes until it finds a preamble of the host.
func (r *Reader) Preamble() (Preamble, error) {
	for {
		found := bytes.Index(r.buffer[r.start:r.end], hostMagic)
		if found < 0 {
			r.dropAllBut(len(hostMagic) - 1)
			if err := r.fill(len(hostMagic)); err != nil {
				return Preamble{}, err
			}
			continue
		}
		r.start += found
		if err := r.fill(PreambleBytes); err != nil {
			return Preamble{}, err
		}
		preamble, ok := parseHostPreamble(r.buffer[r.start:r.end])
		if ok {
			r.start += PreambleBytes
			return preamble, nil
		}
		r.start++
	}
}

// Frame returns the next frame. On ErrBroken no bytes are dropped: a preamble may begin at that very byte.
func (r *Reader) Frame() (Frame, error) {
	if err := r.fill(1); err != nil {
		return Frame{}, err
	}
	if r.buffer[r.start] == hostMagic[0] {
		return Frame{}, ErrBroken
	}
	if err := r.fill(HeaderBytes); err != nil {
		return Frame{}, err
	}
	header, err := ParseHeader(r.buffer[r.start:r.end])
	if err != nil {
		return Frame{}, err
	}
	length := HeaderBytes + int(header.Length)
	if err := r.fill(length); err != nil {
		return Frame{}, err
	}
	frame := Frame{Type: header.Type, Stream: header.Stream, Payload: r.buffer[r.start+HeaderBytes : r.start+length]}
	r.start += length
	return frame, nil
}

// fill reads until count bytes are buffered.
func (r *Reader) fill(count int) error {
	if r.start == r.end {
		r.Reset()
	}
	if r.start+count > len(r.buffer) {
		r.makeRoom(count)
	}
	for r.end-r.start < count {
		n, err := r.source.Read(r.buffer[r.end:])
		r.end += n
		if err != nil && r.end-r.start < count {
			return err
		}
	}
	return nil
}

// makeRoom moves the kept bytes to the front, of a larger buffer if necessary.
func (r *Reader) makeRoom(count int) {
	target := r.buffer
	if count > len(target) {
		target = make([]byte, FrameBytesMax)
	}
	r.end = copy(target, r.buffer[r.start:r.end])
	r.start = 0
	r.buffer = target
}

func (r *Reader) dropAllBut(count int) {
	if r.end-r.start > count {
		r.start = r.end - count
	}
}
