// SPDX-License-Identifier: Apache-2.0

// Package boot boots Debian systems with their own systemd, and installs pgconmgr's
// packages there as an administrator does. Its tests are "make test-boot": about six
// minutes on two busy cores, and two more the first time. They need root, 0.5 GB of
// disk, the network at the first time, and what "scripts/install-deps.sh boot" installs.
//
//	            network namespace of the lab
//	+-------------------------------------------------+
//	|  bridge  vb-client     vb-db1       vb-db2      |
//	+-------------|------------|------------|---------+
//	         host0 client  host0 db1    host0 db2          systemd-nspawn, each with
//	         .10           .11          .12                systemd as process 1
//
// All machines are made of one tree, which debootstrap makes once (.cache/boot at the
// top of the module). A machine changes a layer above it (overlayfs) that goes with the
// machine. Nothing of the host is changed: the lab has a network namespace, control
// groups and a directory of its own, and all of them end with it.
//
// The machines are set up by vagrant/db.sh and vagrant/client.sh, as the machines of
// vagrant/Vagrantfile are.
package boot
