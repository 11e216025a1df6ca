"""One file per kind of data set; the file name is the key in `c.data.mix`."""
