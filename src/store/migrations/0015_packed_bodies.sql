-- unpacked: how many octets the bytes become once they are unpacked (zstd). NULL: they lie there as they came.

ALTER TABLE bodies ADD COLUMN unpacked INTEGER;
ALTER TABLE body_chunks ADD COLUMN unpacked INTEGER;
