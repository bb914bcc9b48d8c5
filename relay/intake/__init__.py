"""HTTP in: the application, receipts, the body budget and rejections."""
