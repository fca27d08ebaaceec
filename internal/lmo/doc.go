// Package lmo compiles gettext catalogues (.po) to the format that LuCI reads (.lmo), like LuCI's po2lmo.
package lmo
