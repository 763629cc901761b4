// The users that commands run as, from /etc/passwd and /etc/group. The files are checked each time, since packages
// add users, and read again if they have changed.

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"bhatti/agent/wire"
)

type account struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32
	home   string
	shell  string
	// isNameless: it is an id without an entry.
	isNameless bool
}

// fileStamp changes with a file's content.
type fileStamp struct {
	device, inode    uint64
	size             int64
	modified, change syscall.Timespec
}

func stampOf(path string) fileStamp {
	var about syscall.Stat_t
	if syscall.Stat(path, &about) != nil {
		return fileStamp{}
	}
	return fileStamp{about.Dev, about.Ino, about.Size, about.Mtim, about.Ctim}
}

// accountsKept limits the number of cached accounts.
const accountsKept = 64

var knownAccounts struct {
	mu            sync.Mutex
	passwd, group fileStamp
	found         map[[2]string]account
}

// findAccount looks a name or a number up in the passwd and group files of a directory.
func findAccount(directory, wanted string) (account, error) {
	known, key := &knownAccounts, [2]string{directory, wanted}
	passwd, group := stampOf(directory+"/passwd"), stampOf(directory+"/group")
	known.mu.Lock()
	defer known.mu.Unlock()
	if known.passwd != passwd || known.group != group || len(known.found) >= accountsKept {
		known.passwd, known.group, known.found = passwd, group, map[[2]string]account{}
	}
	if who, isKnown := known.found[key]; isKnown {
		return who, nil
	}
	who, err := readAccount(directory, wanted)
	if err == nil {
		known.found[key] = who
	}
	return who, err
}

func readAccount(directory, wanted string) (account, error) {
	passwd, err := os.ReadFile(filepath.Join(directory, "passwd"))
	if err != nil && !os.IsNotExist(err) {
		return account{}, wire.Errorf(wire.Internal, "read the users: %v", err)
	}
	found, isFound := parseAccount(string(passwd), wanted)
	if !isFound {
		return account{}, wire.Errorf(wire.Invalid, "no user %q", wanted).Because(wire.NoUser)
	}
	// A guest without a group file is odd, but still usable.
	groups, _ := os.ReadFile(filepath.Join(directory, "group"))
	found.groups = parseGroups(string(groups), found)
	return found, nil
}

func parseAccount(passwd, wanted string) (account, bool) {
	for _, line := range strings.Split(passwd, "\n") {
		fields := strings.Split(line, ":")
		if len(fields) < 7 || (fields[0] != wanted && fields[2] != wanted) {
			continue
		}
		uid, uidErr := strconv.ParseUint(fields[2], 10, 32)
		gid, gidErr := strconv.ParseUint(fields[3], 10, 32)
		if uidErr != nil || gidErr != nil {
			continue
		}
		found := account{name: fields[0], uid: uint32(uid), gid: uint32(gid), home: fields[5], shell: fields[6]}
		if found.home == "" {
			found.home = "/"
		}
		if found.shell == "" {
			found.shell = "/bin/sh"
		}
		return found, true
	}
	return account{}, false
}

func parseGroups(group string, who account) []uint32 {
	groups := []uint32{who.gid}
	for _, line := range strings.Split(group, "\n") {
		fields := strings.Split(line, ":")
		if len(fields) < 4 {
			continue
		}
		gid, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || uint32(gid) == who.gid {
			continue
		}
		for _, member := range strings.Split(fields[3], ",") {
			if member == who.name {
				groups = append(groups, uint32(gid))
				break
			}
		}
	}
	return groups
}

// credential is nil for the agent's own user: only root can switch users.
func (a account) credential() *syscall.Credential {
	if os.Geteuid() != 0 && a.uid == uint32(os.Geteuid()) {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}

// own makes the user the owner of an open file, if we may.
func (a account) own(fd int) {
	_ = syscall.Fchown(fd, int(a.uid), -1)
}
