// SPDX-License-Identifier: Apache-2.0

// Package prometheus tests the alert file for operators, pgconmgr.rules.yml: promtool
// accepts it, each alert fires when it must and stays quiet when all is well, and it
// reads no metric that the daemons do not serve.
package prometheus
