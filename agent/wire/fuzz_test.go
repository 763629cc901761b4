// Whatever bytes come, the reader returns frames that keep the rules, or an error, and holds one frame at most.

package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

func FuzzDecodeFrames(f *testing.F) {
	for _, vector := range readVectors(f).GuestReads {
		f.Add(unhex(f, vector.Hex))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole := eventsOf(bytes.NewReader(stream))
		pieces := eventsOf(&unevenReader{rest: stream})
		if len(whole) != len(pieces) {
			t.Fatalf("%d events at once, %d in pieces", len(whole), len(pieces))
		}
		for index := range whole {
			if whole[index] != pieces[index] {
				t.Fatalf("%q at once, %q in pieces", whole[index], pieces[index])
			}
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	all := readVectors(f)
	for _, vector := range all.BrokenHeaders {
		f.Add(unhex(f, vector.Hex))
	}
	for _, vector := range all.WholeHeaders {
		f.Add(unhex(f, vector.Hex))
	}
	f.Fuzz(func(t *testing.T, buffer []byte) {
		if len(buffer) < HeaderBytes {
			return
		}
		header, err := ParseHeader(buffer)
		if err != nil {
			if !errors.Is(err, ErrBroken) {
				t.Fatal(err)
			}
			return
		}
		if header.Stream == 0 || header.Length > JSONBytesMax {
			t.Fatalf("%+v was accepted", header)
		}
		var again [HeaderBytes]byte
		PutHeader(again[:], header)
		if !bytes.Equal(again[:], buffer[:HeaderBytes]) {
			t.Fatalf("%x became %x", buffer[:HeaderBytes], again)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	for _, vector := range readVectors(f).Requests {
		f.Add([]byte(vector.JSON))
	}
	for _, vector := range readVectors(f).BadRequests {
		f.Add([]byte(vector.Text))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, target := range []any{&Personalise{}, &Exec{}, &ToProcess{}} {
			err := Decode(payload, target)
			var coded *Error
			if err != nil && (!errors.As(err, &coded) || coded.Code != Invalid) {
				t.Fatalf("%v", err)
			}
		}
	})
}

// FuzzPlainRequests holds the readers without reflection to encoding/json.
func FuzzPlainRequests(f *testing.F) {
	for _, vector := range readVectors(f).Requests {
		f.Add([]byte(vector.JSON))
		var compact bytes.Buffer
		if err := json.Compact(&compact, vector.JSON); err != nil {
			f.Fatal(err)
		}
		f.Add(compact.Bytes())
	}
	for _, vector := range readProcessVectors(f).ProcessRequests {
		f.Add([]byte(vector.JSON))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, pair := range [][2]any{
			{&Personalise{}, &Personalise{}}, {&Refresh{}, &Refresh{}}, {&Exec{}, &Exec{}}, {&ProcessStart{}, &ProcessStart{}},
		} {
			if !readPlain(payload, pair[0]) {
				continue
			}
			if err := json.Unmarshal(payload, pair[1]); err != nil {
				t.Fatalf("%s was read, but is not right: %v", payload, err)
			}
			if !reflect.DeepEqual(pair[0], pair[1]) {
				t.Fatalf("%s was read as %+v, not %+v", payload, pair[0], pair[1])
			}
		}
	})
}

// unevenReader returns 1, 2, 3, … bytes at a time.
type unevenReader struct {
	rest []byte
	next int
}

func (r *unevenReader) Read(buffer []byte) (int, error) {
	r.next = r.next%7 + 1
	n := copy(buffer, r.rest[:minimum(r.next, len(r.rest))])
	r.rest = r.rest[n:]
	if n == 0 {
		return 0, errors.New("the end")
	}
	return n, nil
}

func minimum(a, b int) int {
	if a < b {
		return a
	}
	return b
}
