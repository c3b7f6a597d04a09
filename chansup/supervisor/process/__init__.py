"""One child: started, watched, told to end, and what it leaves behind."""
