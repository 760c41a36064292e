// SPDX-License-Identifier: Apache-2.0

// Package vm runs test programs in a virtual machine with a stock Debian kernel, one
// of [Releases]: for what must not be done to the machine that tests run on (its
// clock), and for what its kernel cannot do.
//
//	        Kernel: apt-get download, unpacked into a cache, its modules too
//	Image:  guest (init) · modules · programs with their libraries · files
//	          |  cpio (newc), uncompressed
//	          v
//	QEMU, emulated (TCG), no disk, no network, any user
//	          |  init mounts /proc, /sys, /dev, cgroup2; loads the modules; runs
//	          |  the command; writes its end to the serial line; restarts
//	          v
//	Run:    the serial line, line by line, and the command's exit code
//
// KVM is not used: /dev/kvm is there on machines where stock kernels do not boot
// with it. Emulation is about ten times slower; give guests generous timers.
package vm
