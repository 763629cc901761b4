// Owners of files that the host writes: looked up by name before the first byte arrives, then passed as numbers.

package main

import (
	"math"
	"os"
	"strconv"
	"strings"

	"bhatti/agent/wire"
)

// fileFindOwner resolves "user", "user:group" or numbers. Numbers need no entry in the guest's files.
func (a *agent) fileFindOwner(s *stream, payload []byte) {
	fileOperation(s, payload, func(request wire.FileFindOwner) (any, error) {
		return findOwner("/etc", request.Owner)
	})
}

func findOwner(directory, text string) (wire.FileOwner, error) {
	user, group, hasGroup := strings.Cut(text, ":")
	if user == "" || hasGroup && group == "" {
		return wire.FileOwner{}, wire.Errorf(wire.Invalid, "%q is not an owner; use USER or USER:GROUP", text)
	}
	var owner wire.FileOwner
	who, err := findAccount(directory, user)
	number, isNumber := parseID(user)
	switch {
	case err == nil:
		owner = wire.FileOwner{UID: who.uid, GID: who.gid}
	case isNumber:
		owner = wire.FileOwner{UID: number, GID: number}
	default:
		return wire.FileOwner{}, err
	}
	if !hasGroup {
		return owner, nil
	}
	if id, isKnown := groupID(directory+"/group", group); isKnown {
		owner.GID = id
		return owner, nil
	}
	if owner.GID, isNumber = parseID(group); !isNumber {
		return wire.FileOwner{}, wire.Errorf(wire.Invalid, "no group %q", group)
	}
	return owner, nil
}

// parseID refuses the highest number, which means "unchanged" to the kernel.
func parseID(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err == nil && id < math.MaxUint32
}

func groupID(path, name string) (uint32, bool) {
	content, _ := os.ReadFile(path)
	for _, line := range strings.Split(string(content), "\n") {
		fields := strings.SplitN(line, ":", 4)
		if len(fields) == 4 && fields[0] == name {
			return parseID(fields[2])
		}
	}
	return 0, false
}

// ownerOr returns the owner that a request names, or the default.
func ownerOr(named *wire.FileOwner) account {
	if named == nil {
		return fileOwner()
	}
	return account{uid: named.UID, gid: named.GID}
}
