/**
 * The kit: programs and kernel modules for guests whose image lacks them, on a small read-only disk that all machines
 * share. The agent mounts it at /run/bhatti/kit. Its programs need no file of the image: busybox is static, with a name
 * for each of its programs in `applets`, and the others are started by the kit's own loader:
 *
 *     kit=/run/bhatti/kit; $kit/lib/ld.so --library-path $kit/lib $kit/sbin/sshd -t
 */

/** Their dependencies come with them. */
export const kitPackages: readonly string[] = [
  "busybox-static",
  "openssh-client",
  "openssh-server",
  "openssh-sftp-server",
]

/** A file system needs its size beforehand; what it does not hold is a hole. */
export const kitMib = 64

/**
 * A shell script. $1: the unpacked packages, $2: an empty directory that becomes the kit, $3: the kernel's modules, $4:
 * the kernel's version. It makes files in one fixed order, since the disk's layout follows from it.
 */
export const fillKit = `
mkdir "$2/bin" "$2/sbin" "$2/lib" "$2/lib/modules" "$2/lib/modules/$4" "$2/applets"
cp "$1/bin/busybox" "$1/usr/bin/ssh-keygen" "$2/bin"
ln -s busybox "$2/bin/modprobe"
ln -s busybox "$2/bin/sh"
"$1/bin/busybox" --list | LC_ALL=C sort -u | while read -r name; do ln -s ../bin/busybox "$2/applets/$name"; done
cp "$1/usr/sbin/sshd" "$1/usr/lib/openssh/sftp-server" "$2/sbin"
loader="$1/lib64/ld-linux-x86-64.so.2"
cp -L "$loader" "$2/lib/ld.so"
for program in "$2/sbin/sshd" "$2/sbin/sftp-server" "$2/bin/ssh-keygen"; do
  "$loader" --library-path "$1/lib/x86_64-linux-gnu:$1/usr/lib/x86_64-linux-gnu" --list "$program"
done > "$2/libraries"
if grep -q "not found" "$2/libraries"; then
  grep "not found" "$2/libraries" >&2
  exit 1
fi
sed -n "s|.* => \\($1/[^ ]*\\) (.*|\\1|p" "$2/libraries" | grep -v /ld-linux | LC_ALL=C sort -u | while read -r library; do
  cp -L "$library" "$2/lib"
done
rm "$2/libraries"
(cd "$3" && find . -mindepth 1 -type d | LC_ALL=C sort | while read -r path; do mkdir "$2/lib/modules/$4/$path"; done)
(cd "$3" && find . -type f | LC_ALL=C sort | while read -r path; do cp "$path" "$2/lib/modules/$4/$path"; done)
chmod -R u=rwX,go=rX "$2"
`
