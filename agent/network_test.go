// The network's meaning and the kernel's layouts; no card of this machine is touched.

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"bhatti/agent/wire"
)

var testNetwork = wire.Network{
	MAC: "02:11:22:33:44:55", Address: "10.1.2.3", Prefix: 20, Gateway: "10.1.15.254", DNS: []string{"10.0.0.1", "fd00::1"},
	MTU: 1500,
}

func TestTheKernelsLayoutsAreRight(t *testing.T) {
	if size := unsafe.Sizeof(interfaceRequest{}); size != 40 {
		t.Errorf("ifreq has %d bytes, not 40", size)
	}
}

func TestANetworkIsUnderstood(t *testing.T) {
	got, err := parseNetwork(testNetwork)
	want := identity{
		mac: [6]byte{2, 0x11, 0x22, 0x33, 0x44, 0x55}, address: [4]byte{10, 1, 2, 3}, prefix: 20,
		gateway: [4]byte{10, 1, 15, 254}, hasGateway: true, mtu: 1500,
	}
	if err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	alone := testNetwork
	alone.Prefix = 32
	if got, err := parseNetwork(alone); err != nil || !got.isGatewayFar || got.prefix != 32 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestABadNetworkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.Network){
		"no MAC":          func(n *wire.Network) { n.MAC = "" },
		"a group's MAC":   func(n *wire.Network) { n.MAC = "01:00:00:00:00:01" },
		"a long MAC":      func(n *wire.Network) { n.MAC = "02:00:00:00:00:00:00:01" },
		"a name":          func(n *wire.Network) { n.Address = "host" },
		"an IPv6 address": func(n *wire.Network) { n.Address = "fd00::2" },
		"prefix 0":        func(n *wire.Network) { n.Prefix = 0 },
		"prefix 33":       func(n *wire.Network) { n.Prefix = 33 },
		"a bad gateway":   func(n *wire.Network) { n.Gateway = "10.0.0" },
		"a bad server":    func(n *wire.Network) { n.DNS = []string{"x\nnameserver 1.1.1.1"} },
		"no MTU":          func(n *wire.Network) { n.MTU = 0 },
	} {
		network := testNetwork
		change(&network)
		if got, err := parseNetwork(network); err == nil || asError(err).Code != wire.Invalid {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func TestTheFirstVirtioCardIsTaken(t *testing.T) {
	class := t.TempDir()
	for name, driver := range map[string]string{"lo": "", "dummy0": "dummy", "eth1": "virtio_net", "eth0": "virtio_net"} {
		device := filepath.Join(class, name, "device")
		if err := os.MkdirAll(device, 0o755); err != nil {
			t.Fatal(err)
		}
		if driver != "" {
			if err := os.Symlink("/drivers/"+driver, filepath.Join(device, "driver")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if name, err := networkCard(class); name != "eth0" || err != nil {
		t.Errorf("%q %v", name, err)
	}
	if name, err := networkCard(t.TempDir()); name != "" || err != nil {
		t.Errorf("%q %v", name, err)
	}
}

func TestTheKernelIsAskedInItsOwnTerms(t *testing.T) {
	i, err := parseNetwork(testNetwork)
	if err != nil {
		t.Fatal(err)
	}
	i.isGatewayFar = true
	got := encodeRequests([]kernelRequest{removeAddress(3, i), addAddress(3, i), addDefaultRoute(3, i)})
	want := []byte{
		32, 0, 0, 0, 21, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, // RTM_DELADDR, REQUEST
		2, 20, 0, 0, 3, 0, 0, 0, 8, 0, 2, 0, 10, 1, 2, 3,
		32, 0, 0, 0, 20, 0, 1, 5, 2, 0, 0, 0, 0, 0, 0, 0, // RTM_NEWADDR, REQUEST CREATE REPLACE
		2, 20, 0, 0, 3, 0, 0, 0, 8, 0, 2, 0, 10, 1, 2, 3,
		44, 0, 0, 0, 24, 0, 5, 5, 3, 0, 0, 0, 0, 0, 0, 0, // RTM_NEWROUTE, REQUEST ACK CREATE REPLACE
		2, 0, 0, 0, 254, 3, 0, 1, 4, 0, 0, 0, 8, 0, 5, 0, 10, 1, 15, 254, 8, 0, 4, 0, 3, 0, 0, 0,
	}
	if string(got) != string(want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
}

func TestTheKernelsAnswersAreRead(t *testing.T) {
	refused := append([]byte{36, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0xef, 0xff, 0xff, 0xff}, make([]byte, 16)...)
	if number, errno, isAnswer := parseAnswer(refused); number != 7 || errno != syscall.EEXIST || !isAnswer {
		t.Errorf("%d %v %v", number, errno, isAnswer)
	}
	for name, bytes := range map[string][]byte{"short": refused[:19], "news": append([]byte{36, 0, 0, 0, 20}, refused[5:]...)} {
		if _, _, isAnswer := parseAnswer(bytes); isAnswer {
			t.Errorf("%s is no answer", name)
		}
	}
}

// Without the right to change anything: each refusal has its reason and the number of what was refused.
func TestWhatTheKernelRefusesIsSaid(t *testing.T) {
	socket, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		t.Skip("no netlink here:", err)
	}
	defer syscall.Close(socket)
	i, _ := parseNetwork(testNetwork)
	noCard := uint32(1 << 30)
	if err := ask(socket, []kernelRequest{removeAddress(noCard, i), addAddress(noCard, i)}); err == nil {
		t.Error("a card that is not there got an address")
	}
}
