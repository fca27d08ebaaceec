// Package lmo writes catalogues of translations as LuCI reads them (.lmo), from gettext's (.po), as LuCI's own po2lmo
// does.
package lmo
