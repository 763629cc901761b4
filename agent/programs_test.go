// Which threads wait, and which processes are servers, is seen of real processes; how the kernel writes it, of its own
// words.

package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// startProgram runs a program that writes a line when it is ready.
func startProgram(t *testing.T, argv ...string) int {
	t.Helper()
	command := exec.Command(argv[0], argv[1:]...)
	output, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Skip("this machine lacks the program that is to be found:", err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return command.Process.Pid
}

// waitsOf looks at one process until it waits.
func waitsOf(t *testing.T, process int, earlier map[int]wakeUps) (*programs, []wait) {
	t.Helper()
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(time.Millisecond) {
		look := newPrograms("/proc", os.Getpid(), earlier)
		if waits := look.waitsOf(process, end); len(waits) > 0 {
			return look, waits
		}
	}
	t.Fatal("it does not wait")
	return nil, nil
}

func TestWhichWaitsOfAProgramCount(t *testing.T) {
	listen := "import socket,select,time,os\ns=socket.socket();s.bind(('127.0.0.1',0));s.listen()\n"
	unix := "import socket,select,time,os\ns=socket.socket(socket.AF_UNIX);s.bind('\\0lohar-test-%d' % os.getpid());s.listen()\n"
	cases := map[string]struct {
		program string
		counts  bool
	}{
		"it sleeps":                                 {"import time\nprint(flush=True)\ntime.sleep(30)", true},
		"it waits for input, for half a minute":     {"import select\nprint(flush=True)\nselect.select([],[],[],30)", true},
		"it polls":                                  {"import select\nprint(flush=True)\nwhile 1: select.select([],[],[],.5)", false},
		"it listens for TCP and sleeps":             {listen + "print(flush=True)\ntime.sleep(30)", false},
		"it listens for TCP and polls":              {listen + "print(flush=True)\nwhile 1: select.select([s],[],[],.5)", false},
		"it listens at a unix socket":               {unix + "print(flush=True)\nselect.select([s],[],[],30)", false},
		"it is connected and listens nowhere":       {listen + "c=socket.create_connection(s.getsockname());s.close()\nprint(flush=True)\ntime.sleep(30)", true},
		"its parent, this test, listens for nobody": {"import select\nprint(flush=True)\nselect.select([],[],[],30)", true},
	}
	for name, c := range cases {
		process := startProgram(t, "python3", "-c", c.program)
		if _, waits := waitsOf(t, process, nil); len(waits) != 1 || waits[0].counts != c.counts {
			t.Errorf("%s: %v", name, waits)
		}
	}
}

func TestAChildOfATCPServerIsPartOfItAndOneOfAUnixServerIsNot(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "socket")} {
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		process := startProgram(t, "sh", "-c", "echo ready; exec sleep 30")
		if _, waits := waitsOf(t, process, nil); len(waits) != 1 || waits[0].counts == (network == "tcp") {
			t.Errorf("%s: %v", network, waits)
		}
		listener.Close()
	}
}

// A program that sleeps until a time, as Python and Java do, does not show for how long it sleeps.
func TestWhoWakesOftenPolls(t *testing.T) {
	process := startProgram(t, "python3", "-c", "import threading\ne=threading.Event()\nprint(flush=True)\nwhile 1: e.wait(.02)")
	look, waits := waitsOf(t, process, nil)
	if !waits[0].counts || len(look.now) == 0 {
		t.Fatalf("seen for the first time: %v %v", waits, look.now)
	}
	const turns = 30
	for count := int64(0); count < look.now[process].count+turns; time.Sleep(time.Millisecond) {
		count = wakeUpsIn(look.read("/proc/" + strconv.Itoa(process) + "/status"))
	}
	if _, waits := waitsOf(t, process, look.now); waits[0].counts {
		t.Error("it counts although it wakes each 20 ms")
	}
	seldom := map[int]wakeUps{process: {look.now[process].count, look.at.Add(-time.Hour)}}
	if _, waits := waitsOf(t, process, seldom); !waits[0].counts {
		t.Error("one that wakes seldom does not count")
	}
}

func TestGoMonitorIsNoJob(t *testing.T) {
	look := newPrograms("/proc", 0, nil)
	for atMost, want := range map[time.Duration]bool{time.Minute: true, time.Minute - 1: false, 59 * time.Second: false} {
		if look.isPoll("", 0, timeout{form: inSpec, isFutex: true}, atMost) != want {
			t.Errorf("%v", atMost)
		}
	}
	if look.isPoll("", 0, timeout{form: inSpec}, time.Minute) {
		t.Error("a sleep of a minute")
	}
}

func TestListeningSocketsAreReadFromTheTables(t *testing.T) {
	directory := t.TempDir()
	tables := map[string]string{
		"tcp": `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 501 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 502 1 0000000000000000 20 4 30 10 -1
`,
		"unix": `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 601 /run/a socket
0000000000000000: 00000003 00000000 00000000 0001 03 602
broken
`,
	}
	for name, content := range tables {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := readListeners(directory)
	if len(found.tcp) != 1 || !found.tcp[501] || len(found.unix) != 1 || !found.unix[601] {
		t.Error(found)
	}
	for link, want := range map[string]uint64{"socket:[501]": 501, "pipe:[501]": 0, "socket:[x]": 0, "/a/socket:[5]": 0, "": 0} {
		if inode, isSocket := inodeOf(link); inode != want || isSocket != (want != 0) {
			t.Errorf("%q: %v", link, inode)
		}
	}
}

func TestATimerThatIsAFileDescriptor(t *testing.T) {
	const words = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1057\nclockid: 1\nticks: 0\nsettime flags: 00\n"
	cases := map[string]struct {
		left, interval time.Duration
		isArmed        bool
	}{
		"it_value: (19, 500000000)\nit_interval: (20, 0)\n": {19*time.Second + 500*time.Millisecond, 20 * time.Second, true},
		"it_value: (3, 0)\nit_interval: (0, 0)\n":           {3 * time.Second, 0, true},
		"it_value: (0, 0)\nit_interval: (0, 0)\n":           {},
		"": {},
	}
	for text, want := range cases {
		left, interval, isArmed := timerfdIn(words + text)
		if left != want.left || interval != want.interval || isArmed != want.isArmed {
			t.Errorf("%q: %v %v %v", text, left, interval, isArmed)
		}
	}
}
