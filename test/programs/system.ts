/** Programs of Perl, and of the kernel: modules, file systems, namespaces, networks of the machine's own. */

import { ofFile, type Programs } from "./programs.ts"

const perl: Record<string, string> = {
  numbers:
    'use bigint; my ($a, $b) = (0, 1); ($a, $b) = ($b, $a + $b) for 1 .. 800; print "$a\\n"; printf "%.17g\\n", exp(1);',
  hashes:
    'my %h; $h{$_ % 313} .= chr(97 + $_ % 26) for 1 .. 30000; my $s = 0; $s = ($s * 31 + length($h{$_}) * $_) % 1000003 for sort { $a <=> $b } keys %h; print "$s\\n";',
  "regular expressions":
    "my $t = join ' ', map { $_ * $_ } 1 .. 4000; my $n = () = $t =~ /(\\d)\\1/g; (my $u = $t) =~ s/(\\d)(\\d)/$2$1/g; print $n, ' ', substr($u, 0, 60), ' ', scalar(() = $t =~ /\\b1\\d*?4\\b/g), \"\\n\";",
  sorting:
    'my $x = 1; my @a = map { $x = $x * 48271 % 2147483647 } 1 .. 30000; my @s = sort { $a <=> $b } @a; print "$s[0] $s[15000] $s[-1]\\n";',
  packing:
    "print unpack('H*', pack('NnCa3xd>w', 1, 2, 3, 'abc', 2.5, 300)), ' ', unpack('%32C*', 'x' x 9999), \"\\n\";",
  "closures and eval":
    'my $s = 0; for my $i (1 .. 800) { my $f = eval "sub { \\$_[0] * $i + 1 }"; $s = ($s + $f->($i)) % 1000003 } print "$s\\n"; eval { die { code => 7 } }; print $@->{code}, "\\n";',
  formats:
    "printf '%s %5.2f %-6s| %x %e %03d' . \"\\n\", 'a', 3.14159, 'left', 255, 12345.678, 7; print join(',', map { sprintf '%b', $_ } 1 .. 9), \"\\n\";",
  processes:
    'my @r; for my $i (1 .. 8) { my $p = open my $f, \'-|\'; if (!$p) { print $i * $i; exit } push @r, <$f> } print "@r\\n"; $SIG{USR1} = sub { $n++ }; kill USR1 => $$ for 1 .. 9; print "$n\\n";',
}

const sudo = (script: string) => `sudo -n sh -ec '${script}'`

export const systemPrograms: Programs = {
  ...Object.fromEntries(
    Object.entries(perl).map(([name, source]) => [`perl: ${name}`, ofFile("perl", "p.pl", source)]),
  ),
  "a module of the kernel: dummy": sudo(
    'modprobe dummy numdummies=0; ip link add dm9 type dummy; ip addr add 192.0.2.9/32 dev dm9; ip link set dm9 up; ip -o -4 addr show dev dm9 | cut -d" " -f2-8; ip link del dm9; modprobe -r dummy; grep -c ^dummy /proc/modules || true',
  ),
  "a module that comes and goes": sudo(
    "for i in 1 2 3 4 5; do modprobe dummy numdummies=0; grep -c ^dummy /proc/modules; modprobe -r dummy; done",
  ),
  "a file system in a file": sudo(
    "cd $(mktemp -d); truncate -s 24M f; mkfs.ext4 -q -U 00000000-0000-0000-0000-000000000001 -O ^metadata_csum f; mkdir m; mount -o loop f m; seq 1 90000 > m/a; mkdir m/d; cp m/a m/d/b; sha256sum < m/d/b; umount m; e2fsck -fn f > /dev/null 2>&1; echo $?; mount -o loop f m; cksum < m/a; umount m",
  ),
  "an overlay of directories": sudo(
    "cd $(mktemp -d); mount -t tmpfs t .; cd .; cd $PWD; mkdir l u w m; echo low > l/a; echo low > l/b; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m; echo up > m/a; rm m/b; cat m/a l/a; ls m u; umount m; cd /; umount $OLDPWD",
  ),
  "a file system in memory": sudo(
    "d=$(mktemp -d); mount -t tmpfs -o size=8m t $d; seq 1 300000 > $d/f 2>/dev/null || true; dd if=/dev/zero of=$d/full bs=1M count=20 2>/dev/null || echo full; rm $d/full; head -c 100000 $d/f | md5sum; umount $d",
  ),
  namespaces: sudo(
    'unshare -mnpfu --mount-proc sh -c "hostname inner; hostname; ps -e -o comm= | wc -l; ip -o link | wc -l"; unshare -U -r id -u',
  ),
  "two networks and a link": sudo(
    'ip netns add n9; ip link add v9 type veth peer name w9 netns n9; ip addr add 192.0.2.17/30 dev v9; ip link set v9 up; ip -n n9 addr add 192.0.2.18/30 dev w9; ip -n n9 link set w9 up; ping -c2 -i0.2 -W2 192.0.2.18 | grep -o "2 received"; ip netns del n9',
  ),
  "control groups": sudo(
    "g=/sys/fs/cgroup/test9; mkdir -p $g; cat $g/cgroup.type 2>/dev/null || echo none; ( echo 0 > $g/cgroup.procs && cat /proc/self/cgroup | grep -c test9 ) || true; rmdir $g",
  ),
  "the kernel's settings": sudo(
    "cat /proc/sys/kernel/osrelease /proc/sys/kernel/ostype; sysctl -n kernel.pid_max vm.overcommit_memory; uname -m; getconf PAGESIZE; nproc",
  ),
  "the processor": `grep -m1 'model name' /proc/cpuinfo; grep -m1 flags /proc/cpuinfo | md5sum; grep -c ^processor /proc/cpuinfo`,
  "the kernel's ciphers": `awk '/^name/ { n = $3 } /^selftest/ { print n, $3 }' /proc/crypto | grep -v passed | sort -u; python3 -c "
import socket
try:
    s = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
    s.bind(('skcipher', 'cbc(aes)')); s.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b'k' * 16); o = s.accept()[0]
    o.sendmsg_afalg([b'x' * 4096], op=socket.ALG_OP_ENCRYPT, iv=b'i' * 16); print(o.recv(4096).hex()[-40:])
except OSError as e: print(e.errno)"`,
  "limits and priorities": `ulimit -n 77; ulimit -n; nice -n 5 nice; (ulimit -v 400000; python3 -c 'x = bytearray(10**9)' 2>&1 | tail -1); timeout 0.2 sleep 9; echo $?`,
  "locks of files": `cd $(mktemp -d); for i in 1 2 3 4; do (for k in $(seq 1 20); do flock l sh -c 'n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n'; done) & done; wait; cat n`,
  "pipes with names": `cd $(mktemp -d); mkfifo a b; (seq 1 20000 > a &); (tac < a > b &); head -3 b; wait`,
  "a device of random bytes": `head -c 1000000 /dev/urandom | wc -c; a=$(head -c 16 /dev/urandom | md5sum); b=$(head -c 16 /dev/urandom | md5sum); [ "$a" != "$b" ] && echo differ`,
  "clocks go on": `python3 -c "import time; a, b = time.time(), time.monotonic(); time.sleep(0.05); print(0.04 < time.time() - a < 5, 0.04 < time.monotonic() - b < 5)"`,
}
