// Package deploy holds what stands around the binary in production: units for systemd,
// configurations for proxies, kernel and Redis settings, dashboards and alerts, and what a release
// is made of. It has no code to import. Its tests read every file here the way its reader will,
// with systemd-analyze, promtool or dpkg where they are installed, so that what is shipped is what
// was tried. The proxies are tried in folder e2e, for they need gateways and browsers.
package deploy
