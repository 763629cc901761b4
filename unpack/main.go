// unpack makes a disk, one ext4 file, of the layers of an image or of the tar archive of a root file system. All that
// it reads comes from strangers, so the work is done by a process that has no rights on the host.
//
// It runs as three processes, each started by the one before:
//   - `unpack run DIRECTORY` opens the blobs, with the caller's rights (run.go);
//   - `room` makes namespaces and a root directory with nothing in it but the work and a few programs (room.go);
//   - `work` has no capability and a user namespace with one user id; it reads the layers (work.go).
//
// In the work, too, names of strangers reach the file system late. Contents go to files named by numbers
// (contents.go), layers are merged in memory (merge.go), and the tree is then made in an empty directory, top down
// (place.go). The tree holds only names, kinds and contents. Owners, modes, times, devices and extended attributes
// are written into the finished disk (disk.go, inodes.go), so none of them needs a right, and root and other callers
// get the same disk.
//
// It makes archives of disks too, in the same room (pack.go): of images, and of sandboxes that become images.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: unpack run DIRECTORY")
		os.Exit(2)
	}
	// The daemon's mask keeps others out of its files, and would keep the work out of its own programs.
	syscall.Umask(0o022)
	var err error
	switch os.Args[1] {
	case "run":
		err = run(os.Args[2])
	case "room", "room-rootless":
		err = makeRoom(os.Args[2], os.Args[1] == "room-rootless")
	case "work":
		err = work()
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err == nil {
		return
	}
	if err != errTold {
		tell(messageOf(err))
	}
	os.Exit(1)
}

// A message to the caller, a line of JSON on standard output.
type message struct {
	Type string `json:"type"` // progress, done, archive, refused or failed

	Layer int   `json:"layer,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`

	Entries   int    `json:"entries,omitempty"`
	LeftOut   int    `json:"left_out,omitempty"`
	DiskBytes int64  `json:"disk_bytes,omitempty"`
	ID        string `json:"id,omitempty"`

	Files []archiveFile `json:"files,omitempty"`

	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

func tell(one message) {
	line, err := json.Marshal(one)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

// errTold: a later process has told the caller already.
var errTold = errors.New("told already")

// A refusal is the image's fault, not the host's.
type refusal struct{ reason, message string }

func (r *refusal) Error() string { return r.message }

func refuse(reason, format string, arguments ...any) error {
	return &refusal{reason, fmt.Sprintf(format, arguments...)}
}

func messageOf(err error) message {
	var refused *refusal
	if errors.As(err, &refused) {
		return message{Type: "refused", Reason: refused.reason, Message: refused.message}
	}
	return message{Type: "failed", Message: err.Error()}
}
