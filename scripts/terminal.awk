# Makes an SVG of what tmux capture-pane -ep prints.
function text(s) { gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); return s }
BEGIN {
	split("#6cbf6c #d4b04c #7aa7e8 #c792ea #62c3c9", hue, " ")
	out = ""; colour = "#d8d8d8"
}
{
	n = split($0, part, /\033\[/)
	line = "<tspan fill=\"" colour "\">" text(part[1]) "</tspan>"
	for (i = 2; i <= n; i++) {
		end = index(part[i], "m")
		k = split(substr(part[i], 1, end - 1), code, ";")
		for (j = 1; j <= (k ? k : 1); j++) {
			if (code[j] == 2) colour = "#8a8a8a"
			else if (code[j] == 31) colour = "#e87878"
			else if (code[j] >= 32 && code[j] <= 36) colour = hue[code[j] - 31]
			else if (code[j] == "" || code[j] == 0 || code[j] == 39 || code[j] == 22) colour = "#d8d8d8"
		}
		line = line "<tspan fill=\"" colour "\">" text(substr(part[i], end + 1)) "</tspan>"
	}
	if ($0 != "") last = NR
	out = out sprintf("<text x=\"14\" y=\"%d\" xml:space=\"preserve\">%s</text>\n", NR * 18 + 8, line)
	lines[NR] = out
}
END {
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"870\" height=\"%d\" font-family=\"ui-monospace,monospace\" font-size=\"14\">\n", last * 18 + 24
	printf "<rect width=\"100%%\" height=\"100%%\" rx=\"8\" fill=\"#1c1c22\"/>\n%s</svg>\n", lines[last]
}
