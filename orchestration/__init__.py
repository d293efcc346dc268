"""What runs Marquee on a schedule."""
