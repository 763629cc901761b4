// Listening sockets, by their inode, as the kernel lists them.

package main

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

type listeners struct {
	tcp, unix map[uint64]bool
}

// socketTableBytesMax limits the bytes read from each table.
const socketTableBytesMax = 16 << 20

// acceptsConnections is the flag of a listening unix socket.
const acceptsConnections = 0x10000

// readListeners reads the tables in /proc/PID/net. A kernel without IPv6 has no tcp6.
func readListeners(directory string) listeners {
	found := listeners{map[uint64]bool{}, map[uint64]bool{}}
	for _, name := range []string{"tcp", "tcp6"} {
		readTable(directory+"/"+name, func(line string) bool {
			inode, isListening := tcpListener(line)
			if isListening {
				found.tcp[inode] = true
			}
			return isListening
		})
	}
	readTable(directory+"/unix", func(line string) bool {
		if inode, isListening := unixListener(line); isListening {
			found.unix[inode] = true
		}
		return true
	})
	return found
}

// readTable passes each line after the first to take until it returns false. For TCP the kernel lists listeners
// first.
func readTable(path string, take func(line string) bool) {
	table, err := os.Open(path)
	if err != nil {
		return
	}
	defer table.Close()
	lines := bufio.NewScanner(io.LimitReader(table, socketTableBytesMax))
	for isFirst := true; lines.Scan(); isFirst = false {
		if !isFirst && !take(lines.Text()) {
			return
		}
	}
}

// tcpListener reads a line of /proc/net/tcp: number, local address, remote address, state, five more, inode.
func tcpListener(line string) (inode uint64, isListening bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != listening {
		return 0, false
	}
	inode, err := strconv.ParseUint(fields[9], 10, 64)
	return inode, err == nil
}

// unixListener reads a line of /proc/net/unix: number, count, protocol, flags, type, state, inode, path.
func unixListener(line string) (inode uint64, isListening bool) {
	fields := strings.Fields(line)
	if len(fields) < 7 {
		return 0, false
	}
	flags, err := strconv.ParseUint(fields[3], 16, 64)
	inode, inodeErr := strconv.ParseUint(fields[6], 10, 64)
	return inode, err == nil && inodeErr == nil && flags&acceptsConnections != 0
}

// inodeOf reads a link in /proc/PID/fd.
func inodeOf(link string) (inode uint64, isSocket bool) {
	if !strings.HasPrefix(link, "socket:[") || !strings.HasSuffix(link, "]") {
		return 0, false
	}
	inode, err := strconv.ParseUint(link[len("socket:["):len(link)-1], 10, 64)
	return inode, err == nil
}
